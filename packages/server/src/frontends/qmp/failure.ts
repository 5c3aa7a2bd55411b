/** What QMP answers to a command that cannot be done. */
import { StorageError } from "@libstorage/model";

/** QEMU's classes; for nearly everything it says `GenericError`. */
export type ErrorClass = "GenericError" | "CommandNotFound" | "DeviceNotFound";

export class QmpFailure extends Error {
  override readonly name = "QmpFailure";
  readonly class: ErrorClass;

  constructor(desc: string, errorClass: ErrorClass = "GenericError") {
    super(desc);
    this.class = errorClass;
  }
}

/** What is not the client's affair stays in the log. */
const HIDDEN = "internal error; the server's log has the cause";

export function replyOfFailure(error: unknown): { class: ErrorClass; desc: string } {
  if (error instanceof QmpFailure) return { class: error.class, desc: error.message };
  return { class: "GenericError", desc: error instanceof StorageError ? error.message : HIDDEN };
}

/** Whether the log has to have it. */
export function isOurFault(error: unknown): boolean {
  return !(error instanceof QmpFailure) && !(error instanceof StorageError);
}
