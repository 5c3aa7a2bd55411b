/** Options of exports that do not fit what is exported. */
import { StorageError } from "@libstorage/model";
import type { VolumeRecord } from "../../core/driver.js";
import type { DoorOptions } from "../../core/exporter.js";
import { isReadOnly } from "./nodes.js";

/** @throws {StorageError} `invalid-argument` for options that this kind of export does not have */
export function refuseOptions(
  kind: string,
  options: DoorOptions,
  names: readonly (keyof DoorOptions)[],
): void {
  const given = names.filter((name) => options[name] !== undefined);
  if (given.length === 0) return;
  throw new StorageError(
    "invalid-argument",
    `an export as ${kind} does not take ${given.join(", ")}; leave it out`,
    { options: given },
  );
}

/** @throws {StorageError} `failed-precondition` for writing to what can only be read */
export function checkWritable({ id, source }: VolumeRecord, { writable }: DoorOptions): void {
  if (writable !== true || !isReadOnly(source)) return;
  throw new StorageError(
    "failed-precondition",
    `volume ${id} can only be read, as an ISO file; export it without "writable"`,
    { volumeID: id, access: "ro" },
  );
}

/**
 * Whether writes are answered when they are durable. A client that goes on over the next daemon does not know what the
 * first had not written down: of a qcow2 that is all that was not flushed, and the next flush is answered all the same.
 * @param asked left out: as the volume needs it
 */
export function isWrittenThrough({ source }: VolumeRecord, asked: boolean | undefined): boolean {
  const isHeldInMemory = source.kind === "file" && source.format.startsWith("qcow2");
  return asked ?? isHeldInMemory;
}
