/** Refuses keys that nothing reads, and names the nearest one that something does. */
import { distance } from "fastest-levenshtein";
import { TLS_KEYS } from "@libstorage/model";
import type { Checker } from "./check.js";
import {
  AUTH_KEYS,
  DRIVER_KEYS,
  ENDPOINT_KEYS,
  EXPORTER_KEY,
  EXPORTS_KEY,
  FOREIGN_KEYS,
  KEYS,
  SERVICE_KEYS,
} from "./keys.js";
import { keysOfSchema } from "./schema-keys.js";
import { SERVICES, driverOf, exporterOf, exportsOf } from "./services.js";
import type { Modules } from "./services.js";
import type { ConfigSource } from "./source.js";

/** A known key: `*` stands for one name, `**` at the end for any keys below. */
type Pattern = readonly string[];

const patternOf = (key: string): Pattern => key.split(".");

function blockKeys({ drivers, exporters }: Modules, name: string): readonly string[] {
  const table = { ...drivers, ...exporters };
  const module = Object.hasOwn(table, name) ? table[name] : undefined;
  if (module === undefined) return [];
  return keysOfSchema(module.config).map(
    ({ key, isOpen }) => `${name}.${key}${isOpen ? ".**" : ""}`,
  );
}

/** Keys that may stand at the top, and so in `libstorage.server` as well. */
function outerKeys(modules: Modules): readonly string[] {
  return [
    ...Object.values(KEYS).flatMap(({ key, before = [] }) => [key, ...before]),
    ...["libstorage.tls", "libstorage.server.tls"].flatMap((tls) => [
      tls,
      ...TLS_KEYS.map((key) => `${tls}.${key}`),
    ]),
    ...Object.values(AUTH_KEYS).map(({ key }) => `libstorage.server.${key}`),
    ...Object.values(ENDPOINT_KEYS).map(({ key }) => `libstorage.server.endpoints.*.${key}`),
    ...DRIVER_KEYS,
    ...[...Object.keys(modules.drivers), ...Object.keys(modules.exporters)].flatMap((name) =>
      blockKeys(modules, name),
    ),
  ];
}

function serviceKeys(source: ConfigSource, modules: Modules, service: string): readonly string[] {
  const config = source.server.within(`${SERVICES}.${service}`);
  const driver = driverOf(config, modules)?.name ?? "";
  const known = Object.hasOwn(modules.drivers, driver);
  const exporter = exporterOf(config)?.name ?? "";
  return [
    ...DRIVER_KEYS,
    EXPORTER_KEY,
    EXPORTS_KEY,
    ...Object.values(AUTH_KEYS).map(({ key }) => key),
    ...Object.values(SERVICE_KEYS).map(({ key }) => key),
    // With an unknown driver the driver is the problem, not its block.
    ...(known ? blockKeys(modules, driver) : ["*.**"]),
    ...blockKeys(modules, exporter),
    ...exportsOf(config).flatMap(({ name }) => blockKeys(modules, name)),
  ];
}

function matches(path: readonly string[], pattern: Pattern): boolean {
  return (
    pattern.every((name, index) => {
      if (name === "**") return true;
      const part = path[index];
      return part !== undefined && (name === "*" || name.toLowerCase() === part.toLowerCase());
    }) &&
    (path.length === pattern.length || pattern.at(-1) === "**")
  );
}

/** Whether keys of the pattern stand below the path. */
function isAbove(path: readonly string[], pattern: Pattern): boolean {
  return path.length < pattern.length && matches(path, pattern.slice(0, path.length));
}

interface Place {
  /** What the patterns are relative to, as spelled. */
  readonly above: readonly string[];
  readonly path: readonly string[];
  readonly patterns: readonly Pattern[];
}

/** Which patterns a key is to be held against: those of its service, or those of the server. */
function placeOf(source: ConfigSource, modules: Modules, whole: readonly string[]): Place {
  const scopes = source.server.scopes.filter((scope) => !scope.startsWith("libstorage"));
  const isScoped =
    scopes.includes(whole[0]?.toLowerCase() ?? "") && whole[1]?.toLowerCase() === "libstorage";
  const path = isScoped ? whole.slice(1) : whole;
  const lower = path.map((name) => name.toLowerCase());
  const service = SERVICES.split(".");
  if (path.length > service.length + 1 && service.every((name, index) => name === lower[index])) {
    const depth = service.length + 1;
    return {
      above: whole.slice(0, whole.length - path.length + depth),
      path: path.slice(depth),
      patterns: serviceKeys(source, modules, lower[depth - 1] ?? "").map(patternOf),
    };
  }
  const outer = outerKeys(modules);
  const inside = outer
    .filter((key) => !key.startsWith("libstorage.server."))
    .map((key) => `libstorage.server.${key}`);
  return {
    above: whole.slice(0, whole.length - path.length),
    path,
    patterns: [...outer, ...inside, `${SERVICES}.*`, ...FOREIGN_KEYS].map(patternOf),
  };
}

export function refuseUnknownKeys(source: ConfigSource, modules: Modules, check: Checker): void {
  for (const { path, value } of source.tree.leaves()) {
    const place = placeOf(source, modules, path.split("."));
    const known = place.patterns.filter((pattern) => pattern.join(".") !== `${SERVICES}.*`);
    if (known.some((pattern) => matches(place.path, pattern))) continue;
    const isBranch = place.patterns.some((pattern) => isAbove(place.path, pattern));
    const isService = place.path.length === 4 && matches(place.path, patternOf(`${SERVICES}.*`));
    if (value === null && (isBranch || isService)) continue;
    if (isBranch || isService) check.note(path, "must hold keys below it, not a value");
    else check.note(path, `unknown key${suggestion(place)}`);
  }
}

function suggestion({ above, path, patterns }: Place): string {
  const text = path.join(".").toLowerCase();
  let best: { readonly key: string; readonly far: number } | undefined;
  for (const pattern of patterns) {
    if (pattern.includes("**")) continue;
    const key = pattern
      .map((name, index) => (name === "*" ? (path[index] ?? "NAME") : name))
      .join(".");
    const far = distance(text, key.toLowerCase());
    if (best === undefined || far < best.far) best = { key, far };
  }
  // A third of the last name may be wrong, or one whole level be missing.
  const last = path.at(-1)?.length ?? 0;
  if (best === undefined || best.far > Math.max(3, Math.ceil(last / 2))) return "";
  return `; did you mean ${[...above, best.key].join(".")}?`;
}
