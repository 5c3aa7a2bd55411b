/**
 * How a volume's device comes to this host and goes again. Which transport is used says the field `exporter`
 * of the attachment; without it the device is there already, because the server runs on this host.
 */
import type { Attached, Limits } from "../executor/executor.js";

/** A device that has just proven to be the volume. */
export interface ProvenDevice {
  /** Its node, such as `/dev/sdb` or `/dev/dm-3`: good for now only, since numbers are given again. */
  readonly path: string;
}

export interface BlockTransport {
  /** Whether anything has to be done for the device to appear. */
  readonly connects: boolean;
  /** Doing it again changes nothing. @throws {StorageError} with the reason and the next step */
  connect(attached: Attached, limits: Limits): Promise<void>;
  /** What is not there is fine. @throws {StorageError} `failed-precondition` while the device is in use */
  disconnect(attached: Attached, limits: Limits): Promise<void>;
  /**
   * The volume's device, after the device itself has said which one it is. To be asked right before anything
   * is read or written that depends on it.
   * @throws {StorageError} `failed-precondition` when it is not there, or is another
   */
  prove(attached: Attached, signal: AbortSignal): Promise<ProvenDevice>;
  /** Makes a new size known to this host. */
  rescan(attached: Attached, limits: Limits): Promise<void>;
}

/** A limit that several steps share. */
export class Deadline {
  readonly #end: number;
  readonly signal: AbortSignal;

  constructor({ timeoutMs, signal }: Limits) {
    this.#end = performance.now() + timeoutMs;
    this.signal = signal;
  }

  /** Milliseconds that are left, at most `mostMs`; never less than one second, so that a last step is tried. */
  left(mostMs = Infinity): number {
    return Math.max(1000, Math.min(mostMs, this.#end - performance.now()));
  }

  get isOver(): boolean {
    return performance.now() >= this.#end || this.signal.aborted;
  }
}
