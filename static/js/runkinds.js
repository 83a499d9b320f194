/** What the run card says of jobs that don't train. Loaded at the first of them. */

export const OTHERS = {
  caption: {
    running: "Captioning in progress… Please wait.",
    fetch: "Downloading the caption model… Please wait.",
    succeeded: "Captioning completed",
    failed: "Captioning failed",
    stopped: "Captioning stopped",
    interrupted: "Captioning was interrupted",
    step: "Images",
    log: "Captioning log",
    question: "Stop this captioning?",
    lost: "Captions written so far stay, and can be undone. What was downloaded stays, too.",
    stop: "Stop captioning",
    keep: "Keep captioning",
  },
  download: {
    running: "Download in progress… Please wait.",
    succeeded: "Download completed",
    failed: "Download failed",
    stopped: "Download stopped",
    interrupted: "Download was interrupted",
    step: "Downloaded",
    log: "Log",
    question: "Stop this download?",
    lost: "What was downloaded stays; the next one goes on from there.",
    stop: "Stop the download",
    keep: "Keep on downloading",
  },
};
