/**
 * `GET /events`: the journal as server-sent events. A reader that comes back names the last event it saw
 * and gets what it missed; one that does not keep up is cut off, for it can come back likewise.
 */
import type { ServerResponse } from "node:http";
import { StorageError } from "@libstorage/model";
import type { StorageEvent } from "@libstorage/model";
import { drained } from "./draining.js";
import type { EventFeed } from "./parts.js";

export interface EventStream {
  readonly feed: EventFeed;
  /** Replays what came after it; without one the stream begins with the next event. */
  readonly after: number | undefined;
  /** Only events of this service. */
  readonly service: string | undefined;
  readonly stopping: AbortSignal | undefined;
  readonly heartbeatMs?: number;
}

const HEARTBEAT_MS = 15_000;
/** How much may wait in memory for one reader. */
const MAX_WAITING_BYTES = 256 * 1024;

/**
 * The id after which to replay, from the header or, for readers that cannot set one, the query.
 * @throws {StorageError} `invalid-argument`
 */
export function lastEventID(
  header: string | string[] | undefined,
  query: string | undefined,
): number | undefined {
  const text = typeof header === "string" && header !== "" ? header : query;
  if (text === undefined || text === "") return undefined;
  const id = Number(text);
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(id))
    throw new StorageError("invalid-argument", `Last-Event-ID must be a number, not "${text}"`);
  return id;
}

function frame(event: StorageEvent): string {
  return `id: ${event.id}\nevent: ${event.operation}\ndata: ${JSON.stringify(event)}\n\n`;
}

/** Takes over a response whose head is sent. Resolves when the reader has gone. */
export async function streamEvents(res: ServerResponse, stream: EventStream): Promise<void> {
  const { feed, after, stopping } = stream;
  const service = stream.service?.toLowerCase();
  const isWanted = (event: StorageEvent): boolean =>
    service === undefined || event.service?.toLowerCase() === service;
  const gone = new Promise<void>((resolve) => {
    res.once("close", resolve);
  });
  const end = (): void => {
    res.end();
  };
  stopping?.addEventListener("abort", end, { once: true });
  const heartbeat = setInterval(() => res.write(": \n\n"), stream.heartbeatMs ?? HEARTBEAT_MS);
  res.write("retry: 2000\n\n");
  const live = (event: StorageEvent): void => {
    if (!isWanted(event) || res.destroyed) return;
    res.write(frame(event));
    if (res.writableLength > MAX_WAITING_BYTES) res.destroy();
  };
  let stop = (): void => {};
  try {
    await replay(res, feed, after ?? feed.lastID, isWanted, () => {
      stop = feed.subscribe(live);
    });
    await gone;
  } finally {
    stop();
    clearInterval(heartbeat);
    stopping?.removeEventListener("abort", end);
  }
}

const BATCH = 256;

/**
 * Sends what came after `from`, batch by batch, until there is no more. `onCaughtUp` runs in the same
 * turn as that finding, so that no event falls between the replay and what is live.
 */
async function replay(
  res: ServerResponse,
  feed: EventFeed,
  from: number,
  isWanted: (event: StorageEvent) => boolean,
  onCaughtUp: () => void,
): Promise<void> {
  let last = from;
  while (!res.destroyed && !res.writableEnded) {
    const batch = next(feed, last);
    const newest = batch.at(-1);
    if (newest === undefined) {
      onCaughtUp();
      return;
    }
    last = newest.id;
    const text = batch.filter(isWanted).map(frame).join("");
    if (text !== "" && !res.write(text)) await drained(res);
  }
}

function next(feed: EventFeed, after: number): StorageEvent[] {
  const batch: StorageEvent[] = [];
  for (const event of feed.since(after)) {
    batch.push(event);
    if (batch.length === BATCH) break;
  }
  return batch;
}
