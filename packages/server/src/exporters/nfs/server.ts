/** Who serves shares: the kernel, or nfs-ganesha. */
import type { Ability, OpContext } from "../../core/driver.js";
import type { Session } from "../../core/exporter.js";
import type { Share } from "./share.js";

/** Each method may be called again, and tolerates half states. @throws {StorageError} */
export interface NfsServer {
  readonly kind: "kernel" | "ganesha";
  /** Where it listens. */
  readonly port: number;
  /** @throws {StorageError} `failed-precondition` when nothing can be exported now: say what to do */
  check(share: Pick<Share, "source" | "volumeID">, context: OpContext): Promise<void>;
  /** A number that no other share has, where shares have one. */
  numberFor?(path: string): number;
  add(share: Share, context: OpContext): Promise<void>;
  /** Answers when nothing of that holder can arrive any more. */
  remove(share: Share, context: OpContext): Promise<void>;
  /** Serves exactly these. @returns those that could not be */
  restore(shares: readonly Share[], context: OpContext): Promise<ReadonlyMap<Share, unknown>>;
  sessions(shares: readonly Share[]): Promise<readonly Session[]>;
  watch(onLost: () => void): () => void;
  abilities(context: OpContext): Promise<readonly Ability[]>;
  close(): Promise<void>;
}
