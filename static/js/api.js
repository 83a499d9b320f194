/** The only module that talks to the server (uploads and the event stream have their own channels). */

/** What the server, or the way to it, said no with: a sentence, perhaps a field and a hint. */
export class ApiError extends Error {
  constructor(status, body) {
    super(body.error || `The server answered with ${status}.`);
    this.status = status; // 0: no answer at all
    this.body = body;
    this.field = body.field ?? null;
    this.hint = body.hint ?? null;
    this.problems = body.errors?.length
      ? body.errors
      : [{ error: this.message, field: this.field, hint: this.hint }];
  }

  /** The sentence with its remedy. */
  get whole() {
    return this.hint ? `${this.message} ${this.hint}` : this.message;
  }
}

export const UNREACHABLE = {
  error: "The server does not answer.",
  hint: "A training that runs goes on without it. Is MusubiTLX still started?",
};

/** The address of something below /api, each part percent-encoded: at("projects", name). */
export const at = (...parts) => ["/api", ...parts.map(encodeURIComponent)].join("/");

async function ask(method, path, body, options = {}) {
  const request = { method, headers: { Accept: "application/json" }, ...options };
  if (body !== undefined) {
    request.headers["Content-Type"] = "application/json";
    request.body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(path, request);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, UNREACHABLE);
  }
  return read(answer);
}

async function read(answer) {
  const body = await answer.json().catch((error) => {
    if (error.name === "AbortError") throw error; // called off while it came in
    if (answer.ok) throw new ApiError(0, UNREACHABLE); // cut off
    return null;
  });
  if (answer.status === 401) location.reload(); // the sign-in page, and back here afterwards
  if (!answer.ok) throw new ApiError(answer.status, body ?? {});
  return body;
}

export const get = (path, options) => ask("GET", path, undefined, options);
export const post = (path, body = {}, options) => ask("POST", path, body, options);
export const put = (path, body, options) => ask("PUT", path, body, options);
export const remove = (path) => ask("DELETE", path);

/**
 * Whole lines of a job's log: {text, start, offset} (bytes, `offset` is where the next piece begins). `query` says
 * which: {offset} all from there on, {offset, limit} or {before, limit} a piece of at most so many bytes.
 */
export async function logPiece(job, query) {
  let answer;
  try {
    answer = await fetch(`${at("jobs", job, "log")}?${new URLSearchParams(query)}`);
    if (!answer.ok) return read(answer);
    const place = (name) => Number(answer.headers.get(name));
    return { text: await answer.text(), start: place("X-Log-Start"), offset: place("X-Log-Offset") };
  } catch (error) {
    if (error instanceof ApiError) throw error;
    throw new ApiError(0, UNREACHABLE);
  }
}

/** Everything from byte `offset` of a job's log on. */
export const logFrom = (job, offset) => logPiece(job, { offset });

/** The last `most` bytes of a job's log, from a line's beginning on. */
export const logTail = (job, most) => logPiece(job, { before: END, limit: most });

const END = 10 ** 14;
