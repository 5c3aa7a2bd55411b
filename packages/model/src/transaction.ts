/** The text of the `Libstorage-Tx` header, section 4.3 of the contract. */
import { StorageError } from "./errors.js";

export interface Transaction {
  readonly txID: string;
  /** Unix seconds at which the transaction began. */
  readonly txCR: number;
}

// The Go client's UUIDs do not follow RFC 4122 in the fourth group, so that group is not checked.
const HEADER = /^txid=(\S+?),\s*txcr=(\d{1,15})$/i;
const ID =
  /^(?:urn:uuid:)?\{?([0-9a-f]{8}-[0-9a-f]{4}-[1-5][0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12})\}?$/;

/** @throws {StorageError} `invalid-argument` */
export function parseTransaction(text: string): Transaction {
  const match = HEADER.exec(text.trim());
  if (match === null) throw new StorageError("invalid-argument", "invalid transaction");
  const id = ID.exec(match[1] ?? "");
  if (id?.[1] === undefined) throw new StorageError("invalid-argument", "invalid uuid string");
  return { txID: id[1], txCR: Number(match[2]) };
}

export function formatTransaction({ txID, txCR }: Transaction): string {
  return `txID=${txID}, txCR=${txCR}`;
}
