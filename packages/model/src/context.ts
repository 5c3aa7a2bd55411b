/** What goes with a call besides its parameters: who asks, from where, and how long it may take. */
import type { LocalDevices } from "./local-devices.js";
import type { Transaction } from "./transaction.js";
import type { InstanceID, Task } from "./types.js";

export interface CallContext {
  /** Ends the waiting. A change that has begun goes on as a task. */
  readonly signal?: AbortSignal;
  /** One per service at most counts; see `instanceIDFor`. */
  readonly instanceIDs?: readonly InstanceID[];
  readonly localDevices?: readonly LocalDevices[];
  readonly tx?: Transaction;
  /** The caller's name: the subject of a token, of a certificate, or the peer of a socket. */
  readonly who?: string;
  /** Which front-end the call came through, for the journal. */
  readonly via?: string;
  /** A second call with the same key gets the first one's answer. */
  readonly idempotencyKey?: string;
  /**
   * Refuse to make an object whose name another one of its kind has in the service (`already-exists`, with its
   * id in the data), whatever the service's settings say. Over HTTP: `If-None-Match: *`.
   */
  readonly onlyIfNew?: boolean;
  /** Make a task even of a call that would answer at once. */
  readonly async?: boolean;
  /** Told of the task as soon as there is one, and again when its progress changes. */
  readonly onTask?: (task: Task) => void;
}
