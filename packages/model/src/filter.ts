import { StorageError } from "./errors.js";

export function parseFilter(text: string): (object: object) => boolean {
  throw new StorageError("unimplemented", `filter ${text}`);
}
