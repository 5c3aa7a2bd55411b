/** Answers to reads, kept with their ETag, so that the server need not send them again. */
import type { Route } from "@libstorage/model";
import type { HttpRequest } from "./http-request.js";

interface Kept {
  readonly etag: string;
  readonly value: unknown;
}

/** A request whose answer may be known. */
export interface Known {
  /** The request, with the question whether anything has changed. */
  readonly asking: HttpRequest;
  /** What was answered last; undefined when nothing was. */
  readonly value: unknown;
  keep(etag: unknown, value: unknown): void;
}

/** Lists are few; looks at single volumes are many and small. */
const MOST_KEPT = 16;

export class AnswerMemory {
  readonly #kept = new Map<string, Kept>();

  /** @returns undefined for what is no read */
  of(route: Route, request: HttpRequest): Known | undefined {
    if (route.method !== "GET" || route.of !== "service") return undefined;
    const { "Libstorage-Tx": _, ...identity } = request.headers;
    const key = JSON.stringify([request.url, identity]);
    const kept = this.#kept.get(key);
    return {
      asking:
        kept === undefined
          ? request
          : { ...request, headers: { ...request.headers, "If-None-Match": kept.etag } },
      value: kept?.value,
      keep: (etag, value) => {
        this.#kept.delete(key);
        if (typeof etag !== "string" || value === undefined) return;
        this.#kept.set(key, { etag, value });
        const [oldest] = this.#kept.keys();
        if (this.#kept.size > MOST_KEPT && oldest !== undefined) this.#kept.delete(oldest);
      },
    };
  }
}
