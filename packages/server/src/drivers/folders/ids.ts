/** Ids become file names, so they pass one strict form before any path is made of them. */
import { StorageError } from "@libstorage/model";
import type { IdScheme } from "../../core/driver.js";

const ID = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;
const SNAPSHOT = /-(\d{3,15})$/;

/** Whether `id` can be the name of a volume or snapshot: one plain file name that is not a record's. */
export function isId(id: string): boolean {
  return ID.test(id) && !id.endsWith(".json");
}

/** @throws {StorageError} `invalid-argument` for what cannot be an id, such as one that climbs */
export function checkId(id: string): string {
  if (isId(id)) return id;
  const shown = JSON.stringify(id.slice(0, 140));
  throw new StorageError(
    "invalid-argument",
    `${shown} cannot be an id: letters, digits, dot, dash and underscore, at most 128`,
    { resourceID: id.slice(0, 140) },
  );
}

function padded(number: number): string {
  return String(number).padStart(3, "0");
}

function numberIn(form: RegExp, id: string): number | undefined {
  const digits = form.exec(id)?.[1];
  return digits === undefined ? undefined : Number(digits);
}

/**
 * `NAME-000`, and `NAME-000-000` with one counter for the snapshots of all volumes.
 * @param name the driver's, of plain letters
 */
export function folderIDs(name: string): IdScheme {
  const volume = new RegExp(`^${name}-(\\d{3,15})$`);
  return {
    first: 0,
    volumeID: (number) => `${name}-${padded(number)}`,
    snapshotID: (number, volumeID) => `${volumeID}-${padded(number)}`,
    numberOfVolume: (id) => numberIn(volume, id),
    numberOfSnapshot: (id) => numberIn(SNAPSHOT, id),
  };
}
