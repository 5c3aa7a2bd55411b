/** Server-sent events: the text format, and a stream that comes back after a break. */
import { setTimeout as sleep } from "node:timers/promises";
import { StorageError } from "@libstorage/model";
import type { StorageEvent } from "@libstorage/model";
import type { StreamReply } from "./transport.js";

interface Frame {
  readonly id: string | undefined;
  readonly data: string;
}

/** An event that is longer is no event of this API. */
const MAX_FRAME_CHARS = 1024 * 1024;

/** Splits a stream of text into frames as the HTML standard has them (server-sent events, parsing). */
export class FrameReader {
  #rest = "";
  #id: string | undefined;
  #data: string[] = [];
  /** How long to wait before coming back, when the server said so. */
  retryMs: number | undefined;

  /** @throws {StorageError} `resource-exhausted` for a line without end */
  push(text: string): readonly Frame[] {
    const frames: Frame[] = [];
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop() ?? "";
    if (this.#rest.length > MAX_FRAME_CHARS)
      throw new StorageError("resource-exhausted", "an event of the server is too long");
    for (const line of lines) {
      if (line !== "") this.#line(line);
      else if (this.#data.length > 0) {
        frames.push({ id: this.#id, data: this.#data.join("\n") });
        this.#data = [];
      }
    }
    return frames;
  }

  #line(line: string): void {
    const colon = line.indexOf(":");
    if (colon === 0) return;
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "data") this.#data.push(value);
    else if (field === "id" && !value.includes("\0")) this.#id = value;
    else if (field === "retry" && /^\d+$/.test(value)) this.retryMs = Number(value);
  }
}

export interface EventOptions {
  /** Only events of this service. */
  readonly service?: string;
  /** Begin after this event; without it, with the next one. */
  readonly lastEventID?: number;
  readonly signal?: AbortSignal;
  /** Told when the connection broke, before it is made anew. */
  readonly onBreak?: (error: StorageError) => void;
}

/** Without any byte for so long, heartbeats included, the connection is taken for dead. */
const SILENCE_MS = 60_000;

/**
 * Events until the signal aborts. After a break it comes back and asks for what it missed.
 * @param open makes one connection
 * @throws {StorageError} when the first connection fails, or the server refuses
 */
export async function* readEvents(
  open: (lastEventID: number | undefined, signal: AbortSignal) => Promise<StreamReply>,
  options: EventOptions,
): AsyncGenerator<StorageEvent, void> {
  let last = options.lastEventID;
  let retryMs = 1000;
  let isFirst = true;
  const isOver = (): boolean => options.signal?.aborted === true;
  while (!isOver()) {
    const frames = new FrameReader();
    try {
      for await (const event of readOnce(open, last, frames, options.signal)) {
        isFirst = false;
        last = event.id;
        yield event;
      }
      isFirst = false;
    } catch (error) {
      if (isOver()) return;
      if (!(error instanceof StorageError) || error.code !== "unavailable" || isFirst) throw error;
      options.onBreak?.(error);
    }
    retryMs = frames.retryMs ?? Math.min(retryMs * 1.5, 15_000);
    await sleep(retryMs, undefined, { ...(options.signal && { signal: options.signal }) }).catch(
      () => {},
    );
  }
}

async function* readOnce(
  open: (lastEventID: number | undefined, signal: AbortSignal) => Promise<StreamReply>,
  last: number | undefined,
  frames: FrameReader,
  outer: AbortSignal | undefined,
): AsyncGenerator<StorageEvent, void> {
  const silence = new AbortController();
  const signal = outer === undefined ? silence.signal : AbortSignal.any([outer, silence.signal]);
  const { stream } = await open(last, signal);
  let timer = setTimeout(() => silence.abort(), SILENCE_MS);
  const abort = (): void => void stream.destroy();
  signal.addEventListener("abort", abort, { once: true });
  try {
    stream.setEncoding("utf8");
    for await (const chunk of stream) {
      clearTimeout(timer);
      timer = setTimeout(() => silence.abort(), SILENCE_MS);
      for (const frame of frames.push(String(chunk))) yield eventOf(frame);
    }
  } catch (error) {
    if (error instanceof StorageError) throw error;
    throw new StorageError("unavailable", "the event stream broke", {}, { cause: error });
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", abort);
    stream.destroy();
  }
}

function eventOf({ data }: Frame): StorageEvent {
  try {
    const event = JSON.parse(data) as StorageEvent;
    if (typeof event.id === "number") return event;
  } catch {
    // Said below.
  }
  throw new StorageError(
    "internal",
    `the server sent an event that is none: ${data.slice(0, 200)}`,
  );
}
