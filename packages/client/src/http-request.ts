/** From an operation of the route table to what goes on the wire. Pure. */
import {
  formatInstanceID,
  formatLocalDevices,
  formatTransaction,
  StorageError,
} from "@libstorage/model";
import type { CallContext, QueryKind, Route, Transaction } from "@libstorage/model";

export interface HttpRequest {
  readonly method: Route["method"];
  /** Path and query. */
  readonly url: string;
  /** A list is sent as one line each. */
  readonly headers: Readonly<Record<string, string | string[]>>;
  readonly body?: string;
}

/** What a call needs besides its context; made anew for each call, kept for its repeats. */
export interface CallIdentity {
  readonly tx: Transaction;
  /** Sent with writes only. */
  readonly idempotencyKey: string;
  readonly token?: string;
}

function segment(name: string, value: unknown): string {
  if (typeof value !== "string" || value === "")
    throw new StorageError("invalid-argument", `${name} is missing`);
  // The dots would be taken for a step up or none at all.
  if (value === "." || value === "..")
    throw new StorageError("invalid-argument", `"${value}" cannot be a ${name}`);
  return encodeURIComponent(value);
}

function queryValue(kind: QueryKind, value: unknown): string | undefined {
  if (value === undefined) return undefined;
  // Some flags count as set whatever their value, so a flag that is off is left out.
  if (kind === "flag") return value === true ? "true" : undefined;
  return encodeURIComponent(value as string | number);
}

/** Path variables escaped, the action first, then the query parameters in the table's order. */
export function urlOf(
  route: Route,
  params: Readonly<Record<string, unknown>>,
  context: CallContext,
): string {
  const path = route.path.replace(/:(\w+)/g, (_, name: string) => segment(name, params[name]));
  const query: string[] = route.action === undefined ? [] : [route.action];
  for (const [name, kind] of Object.entries(route.query)) {
    const value = queryValue(kind, params[name]);
    if (value !== undefined) query.push(`${name}=${value}`);
  }
  if (route.task && context.async === true) query.push("async=true");
  return query.length === 0 ? path : `${path}?${query.join("&")}`;
}

/** All but the tab, which may stand in a header. */
const CONTROL = /(?!\t)\p{Cc}/u;

/** Header bytes are UTF-8; Node takes them as Latin-1. A line break would begin another header. */
function headerText(what: string, text: string): string {
  if (CONTROL.test(text))
    throw new StorageError("invalid-argument", `${what} has a control character`);
  return Buffer.from(text, "utf8").toString("latin1");
}

/** Whether the operation changes something. */
export function isWrite(route: Route): boolean {
  return route.method === "POST" || route.method === "DELETE";
}

export function requestOf(
  route: Route,
  params: Readonly<Record<string, unknown>>,
  body: unknown,
  context: CallContext,
  identity: CallIdentity,
): HttpRequest {
  const headers: Record<string, string | string[]> = {
    "Libstorage-Tx": formatTransaction(identity.tx),
  };
  const ids = (context.instanceIDs ?? []).map((id) =>
    headerText("an instance ID", formatInstanceID(id)),
  );
  if (ids.length > 0) headers["Libstorage-Instanceid"] = ids;
  const devices = (context.localDevices ?? []).map((map) =>
    headerText("a local device", formatLocalDevices(map)),
  );
  if (devices.length > 0) headers["Libstorage-Localdevices"] = devices;
  if (identity.token !== undefined)
    headers["Authorization"] = headerText("the token", `Bearer ${identity.token}`);
  if (isWrite(route)) headers["Idempotency-Key"] = identity.idempotencyKey;
  if (isWrite(route) && context.onlyIfNew === true) headers["If-None-Match"] = "*";
  const request = { method: route.method, url: urlOf(route, params, context), headers };
  if (route.body === undefined) return request;
  headers["Content-Type"] = "application/json";
  return { ...request, body: JSON.stringify(body ?? {}) };
}
