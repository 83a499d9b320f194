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

/** Plain text from byte `offset` of a job's log, and the offset to go on from. */
export async function logFrom(job, offset) {
  let answer;
  try {
    answer = await fetch(`${at("jobs", job, "log")}?offset=${offset}`);
  } catch {
    throw new ApiError(0, UNREACHABLE);
  }
  if (!answer.ok) return read(answer);
  return { text: await answer.text(), offset: Number(answer.headers.get("X-Log-Offset") ?? offset) };
}

/** The last `most` bytes of a job's log from a line's beginning on, and how many bytes come before them. */
export async function logTail(job, most) {
  const { offset: end } = await logFrom(job, Number.MAX_SAFE_INTEGER.toString().slice(0, 15));
  if (end <= most) return logFrom(job, 0);
  const piece = await logFrom(job, end - most);
  const cut = piece.text.indexOf("\n") + 1;
  return { ...piece, text: piece.text.slice(cut), skipped: end - most + cut };
}
