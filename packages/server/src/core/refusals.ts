/** Refusals that several operations share. */
import { StorageError } from "@libstorage/model";

/** The record, unless it is broken. @throws {StorageError} `failed-precondition` */
export function usable<R extends { readonly id: string; readonly broken?: string }>(record: R): R {
  if (record.broken === undefined) return record;
  throw new StorageError(
    "failed-precondition",
    `${record.id} cannot be used: ${record.broken}; repair it, or remove it with force`,
    { id: record.id, broken: record.broken },
  );
}

export function unable(what: string): StorageError {
  return new StorageError("unimplemented", `the driver of this service cannot ${what}`);
}
