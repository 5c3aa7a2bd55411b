/**
 * Which hold has which name and which path, of all exporters of a service: they may share a daemon or a folder. Those know
 * what is served at the moment; a hold that is hidden, or could not be made again, keeps what its record names.
 */
import { StorageError } from "@libstorage/model";
import type { AttachmentRecord } from "./driver.js";
import { keyOf } from "./exporter.js";
import type { Hold } from "./exporter.js";

/** What a hold may have alone: `export`, by which clients ask for it, and the path of its `socket` or `file`. */
type Fields = NonNullable<AttachmentRecord["fields"]>;

export class Claims {
  /** Holds, by what they have. */
  readonly #owners = new Map<string, string>();

  /** @throws {StorageError} `already-exists` for what any hold has */
  needFree(fields: Fields): void {
    this.#needOwn(fields, undefined);
  }

  /**
   * To be called before a hold is exported, in whatever state it is. Again is fine.
   * @throws {StorageError} `already-exists` when another hold has its name or its path, as two may that were planned at once
   */
  claim(hold: Hold): void {
    const { fields = {} } = hold.attachment;
    this.#needOwn(fields, keyOf(hold));
    for (const key of Object.keys(claimedIn(fields))) this.#owners.set(key, keyOf(hold));
  }

  #needOwn(fields: Fields, owner: string | undefined): void {
    for (const [key, taken] of Object.entries(claimedIn(fields)))
      if ((this.#owners.get(key) ?? owner) !== owner) throw taken();
  }

  /** Whether what its record names is not another hold's, so that it may be taken away. */
  mayTouch(hold: Hold): boolean {
    const keys = Object.keys(claimedIn(hold.attachment.fields ?? {}));
    return keys.every((key) => (this.#owners.get(key) ?? keyOf(hold)) === keyOf(hold));
  }

  /** To be called when it is not exported any more, and not before. */
  release(hold: Hold): void {
    for (const key of Object.keys(claimedIn(hold.attachment.fields ?? {})))
      if (this.#owners.get(key) === keyOf(hold)) this.#owners.delete(key);
  }
}

/** With what to say when another has it. */
function claimedIn(fields: Fields): Readonly<Record<string, () => StorageError>> {
  const { export: name, socket, file } = fields;
  const path = socket ?? file;
  return {
    ...(name !== undefined && { [`name ${name}`]: () => nameTaken(name) }),
    ...(path !== undefined && { [`path ${path}`]: () => pathTaken(path) }),
  };
}

function nameTaken(name: string): StorageError {
  return new StorageError(
    "already-exists",
    `another export of the service has the name ${name} until it is removed, hidden or not; choose another name, or leave it out`,
    { name },
  );
}

function pathTaken(path: string): StorageError {
  return new StorageError(
    "already-exists",
    `${path} is the file of an export that is there still, perhaps on its way out; remove that one, or choose another path`,
    { path },
  );
}
