/**
 * Which hold has which name and which socket, of all exporters that share storage daemons. A daemon, the gate and a folder know
 * what is served at the moment; a hold that is hidden, or could not be made again, keeps what its record names.
 */
import { StorageError } from "@libstorage/model";
import type { Hold } from "../../core/exporter.js";
import { exportNameOf } from "./names.js";

export class Claims {
  /** Holds, by what they have. */
  readonly #owners = new Map<string, string>();

  /** Whether any hold has this export name. */
  hasName(name: string): boolean {
    return this.#owners.has(ofName(name));
  }

  hasPlace(path: string): boolean {
    return this.#owners.has(ofPlace(path));
  }

  /**
   * To be called before a hold is exported, in whatever state it is. Again is fine.
   * @throws {StorageError} `already-exists` when another hold has its name or its path, as two may that were planned at once
   */
  claim(hold: Hold): void {
    if (!this.mayTouch(hold)) throw nameTaken(exportNameOf(hold));
    for (const key of keysOf(hold)) this.#owners.set(key, keyOf(hold));
  }

  /** Whether what its record names is not another hold's, so that it may be taken away. */
  mayTouch(hold: Hold): boolean {
    return keysOf(hold).every((key) => (this.#owners.get(key) ?? keyOf(hold)) === keyOf(hold));
  }

  /** To be called when it is not exported any more, and not before. */
  release(hold: Hold): void {
    for (const key of keysOf(hold))
      if (this.#owners.get(key) === keyOf(hold)) this.#owners.delete(key);
  }
}

const ofName = (name: string): string => `name ${name}`;
const ofPlace = (path: string): string => `path ${path}`;

function keysOf(hold: Hold): readonly string[] {
  const { socket } = hold.attachment.fields ?? {};
  const name = exportNameOf(hold);
  return [
    ...(name === "" ? [] : [ofName(name)]),
    ...(socket === undefined ? [] : [ofPlace(socket)]),
  ];
}

function keyOf({ volume, attachment: { instanceID, epoch } }: Hold): string {
  return JSON.stringify([volume.id, instanceID.id, epoch]);
}

export function nameTaken(name: string): StorageError {
  return new StorageError(
    "already-exists",
    `another export of the service has the name ${name}, or its path, until it is removed, hidden or not; choose another name, or leave it out`,
    { name },
  );
}
