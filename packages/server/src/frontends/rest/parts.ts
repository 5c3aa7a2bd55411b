/** What the REST front-end is made of. The composition root fills it in. */
import { MAX_JSON_DEPTH } from "@libstorage/model";
import type { Health, StorageEvent, VolumeService } from "@libstorage/model";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Readable, Writable } from "node:stream";
import type { Logger } from "../../core/log.js";
import type { ContentCalls } from "../embedded/content.js";
import type { Auth } from "./auth.js";
import type { Executors } from "./executors.js";
import type { Query } from "./query.js";
import type { HeaderList } from "./send.js";

/** The journal as the outside may read it. Ids only grow; they need not be without gaps. */
export interface EventFeed {
  /** Every event with a greater id, in order. */
  since(id: number): Iterable<StorageEvent>;
  /** Told of each event after it was written. Answers how to stop. */
  subscribe(listener: (event: StorageEvent) => void): () => void;
  /** Id of the newest event; 0 when there is none. */
  readonly lastID: number;
}

export interface HttpLimits {
  /** Longest request body. */
  readonly bodyBytes: number;
  /** Deepest nesting of arrays and objects in a body. */
  readonly jsonDepth: number;
}

export const DEFAULT_LIMITS: HttpLimits = { bodyBytes: 1024 * 1024, jsonDepth: MAX_JSON_DEPTH };

/** `logging.httpRequests` and `logging.httpResponses` of section 14 of the contract. */
export interface AccessLog {
  /** Whether a dump of each request follows its line. */
  readonly requests: boolean;
  /** Whether a dump of each response's status and headers follows. */
  readonly responses: boolean;
  /** Gets whole lines, without the final newline. */
  write(text: string): void;
}

export interface RestParts {
  readonly service: VolumeService;
  readonly content: ContentCalls;
  readonly events: EventFeed;
  /** Sent with every routed response: see `inventServerName`. */
  readonly serverName: string;
  readonly version: string;
  /** Opens `/help/config` and `/help/env`. */
  readonly adminToken: string;
  /** Nested objects with keys in lower case. Secrets are taken out here, not by the caller. */
  config(): object;
  env(): Readonly<Record<string, string | undefined>>;
  health(): Health | Promise<Health>;
  readonly auth: Auth;
  /** Whether members of `opts` replace the request's own: `libstorage.server.parseRequestOpts`. */
  readonly parseRequestOpts: boolean;
  /** How long a request waits for its task before it answers 408: `libstorage.server.tasks.exeTimeout`. */
  readonly exeTimeoutMs: number;
  /** The folder whose files `/executors` offers; without one the list is empty. */
  readonly executorsFolder?: string;
  readonly limits?: Partial<HttpLimits>;
  readonly log: Logger;
  readonly accessLog?: AccessLog;
  /** `libstorage.schema.responseValidationEnabled`. */
  readonly validateResponses?: boolean;
  /** Speaks QMP; absent where it is not configured. */
  readonly talkQmp?: (input: Readable, output: Writable, who: string) => Promise<void>;
  /** Ends the event streams, so that a stop need not wait for them. */
  readonly stopping?: AbortSignal;
}

/** One request, its response, and what its URL says. */
export interface Exchange {
  readonly req: IncomingMessage;
  readonly res: ServerResponse;
  readonly parts: RestParts;
  readonly executors: Executors;
  readonly query: Query;
  /** Path variables. */
  readonly path: Readonly<Record<string, string>>;
  /** To be sent with the answer. */
  readonly headers: HeaderList;
}
