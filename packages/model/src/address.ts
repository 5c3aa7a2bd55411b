/** Endpoint addresses, section 14 of the contract: `tcp://HOST:PORT`, `unix://PATH`. */
import { StorageError } from "./errors.js";

export type Address =
  | { readonly kind: "unix"; readonly path: string }
  | { readonly kind: "tcp"; readonly host: string; readonly port: number };

/** The port that the reference's documentation uses throughout. */
export const DEFAULT_PORT = 7979;

/**
 * Reads `tcp://HOST:PORT`, `tcp://:PORT`, `unix://PATH`, `http(s)://HOST:PORT`, `HOST:PORT` or `/PATH`.
 * @throws {StorageError} `invalid-argument`
 */
export function parseAddress(text: string): Address {
  const unix = /^(?:unix(?:packet|gram)?:\/\/)?(\/.+)$/.exec(text);
  if (unix?.[1] !== undefined) return { kind: "unix", path: unix[1] };
  const tcp =
    /^(?:(?:tcp[46]?|https?):\/\/)?(\[[0-9a-fA-F:.]+(?:%[\w.~-]+)?\]|[^\s:/[\]]*)(?::(\d{1,5}))?\/?$/.exec(
      text,
    );
  const port = tcp?.[2] === undefined ? DEFAULT_PORT : Number(tcp[2]);
  if (tcp === null || text === "" || port > 65_535 || /^(?:unix|tcp[46]?|https?)$/.test(text))
    throw new StorageError(
      "invalid-argument",
      `"${text}" is no address: write tcp://HOST:PORT or unix:///PATH`,
      { address: text },
    );
  return { kind: "tcp", host: (tcp[1] ?? "").replace(/^\[|\]$/g, ""), port };
}

/** Whether only this host can reach the address. */
export function isLocal(address: Address): boolean {
  if (address.kind === "unix") return true;
  return (
    address.host === "localhost" ||
    address.host === "::1" ||
    /^127(?:\.\d{1,3}){3}$/.test(address.host)
  );
}

export function formatAddress(address: Address): string {
  if (address.kind === "unix") return `unix://${address.path}`;
  const host = address.host.includes(":") ? `[${address.host}]` : address.host;
  return `tcp://${host}:${address.port}`;
}
