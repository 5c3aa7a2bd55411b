/**
 * From method and path to the operations of the route table. A path has at most three segments, so a table
 * by its first one and their number is all it takes. (@koa/router was measured: a fifth of the time of a
 * small read; and it would let HEAD into every GET, and match segments before decoding them.)
 */
import { ROUTES, StorageError } from "@libstorage/model";
import type { Operation, Route } from "@libstorage/model";
import type { Query } from "./query.js";

export interface Entry {
  readonly operation: Operation;
  readonly route: Route;
}

/** The operations of one method and path; which one it is, an action parameter tells. */
interface Endpoint {
  readonly segments: readonly string[];
  readonly entries: Entry[];
}

export interface Match {
  readonly entries: readonly Entry[];
  /** Path variables, decoded. */
  readonly path: Readonly<Record<string, string>>;
}

function keyOf(method: string, segments: readonly string[]): string {
  return `${method} ${segments.length} ${segments[0]}`;
}

function endpoints(): ReadonlyMap<string, readonly Endpoint[]> {
  const table = new Map<string, Endpoint[]>();
  for (const [operation, route] of Object.entries(ROUTES) as [Operation, Route][]) {
    const segments = route.path.slice(1).split("/");
    const key = keyOf(route.method, segments);
    const found = table.get(key) ?? [];
    table.set(key, found);
    const same = found.find((endpoint) => endpoint.segments.join("/") === segments.join("/"));
    if (same === undefined) found.push({ segments, entries: [{ operation, route }] });
    else same.entries.push({ operation, route });
  }
  return table;
}

const TABLE = endpoints();

/** The segments of a path, decoded; undefined when one cannot be, or holds a slash then. */
function segmentsOf(path: string): string[] | undefined {
  const segments = path.slice(1).split("/");
  if (!path.includes("%")) return segments;
  try {
    const decoded = segments.map(decodeURIComponent);
    return decoded.some((segment) => segment.includes("/")) ? undefined : decoded;
  } catch {
    return undefined;
  }
}

export function match(method: string, path: string): Match | undefined {
  const segments = segmentsOf(path);
  if (segments === undefined) return undefined;
  for (const endpoint of TABLE.get(keyOf(method, segments)) ?? []) {
    const variables = variablesOf(endpoint, segments);
    if (variables !== undefined) return { entries: endpoint.entries, path: variables };
  }
  return undefined;
}

function variablesOf(
  { segments: pattern }: Endpoint,
  segments: readonly string[],
): Record<string, string> | undefined {
  const variables: Record<string, string> = {};
  for (let at = 0; at < pattern.length; at += 1) {
    const expected = pattern[at] ?? "";
    const segment = segments[at] ?? "";
    if (!expected.startsWith(":")) {
      if (expected !== segment) return undefined;
    } else if (segment === "") return undefined;
    else variables[expected.slice(1)] = segment;
  }
  return variables;
}

/** @throws {StorageError} `invalid-argument` when the query names two actions */
export function choose(entries: readonly Entry[], query: Query): Entry | undefined {
  const [first] = entries;
  if (entries.length === 1 && first?.route.action === undefined) return first;
  const named = entries.filter(
    ({ route }) => route.action !== undefined && query.hasAction(route.action),
  );
  if (named.length > 1) {
    const actions = named.map(({ route }) => route.action).join(" and ");
    throw new StorageError("invalid-argument", `one action at a time: the query names ${actions}`);
  }
  return named[0] ?? entries.find(({ route }) => route.action === undefined);
}

const UNCLEAN = /\/\/|\/\.{1,2}(?:\/|$)/;

/** Where a path with empty or dot segments leads, or undefined for a clean one (section 3). */
export function cleaned(path: string): string | undefined {
  if (!UNCLEAN.test(path)) return undefined;
  const kept: string[] = [];
  for (const segment of path.split("/")) {
    if (segment === "..") kept.pop();
    else if (segment !== "" && segment !== ".") kept.push(segment);
  }
  const slash = path.endsWith("/") && kept.length > 0 ? "/" : "";
  return `/${kept.join("/")}${slash}`;
}
