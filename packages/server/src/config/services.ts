/** `libstorage.server.services`: which there are, their drivers and exporters, and the own blocks of these. */
import { distance } from "fastest-levenshtein";
import * as v from "valibot";
import { booleanOf, placesOf } from "@libstorage/model";
import type { ConfigTree, ScopedConfig } from "@libstorage/model";
import type { DriverModule } from "../core/driver.js";
import type { ExporterModule } from "../core/exporter.js";
import { readServiceAuth } from "./auth.js";
import type { Checker } from "./check.js";
import { DRIVER_KEYS, EXPORTER_KEY, EXPORTS_KEY, SERVICE_KEYS } from "./keys.js";
import { keysOfSchema } from "./schema-keys.js";
import type { ServiceConfig } from "./server-config.js";
import type { ConfigSource } from "./source.js";
import { SERVICE_NAME } from "./values.js";

export type DriverTable = Readonly<Record<string, DriverModule>>;

/** What a service can be made of. */
export interface Modules {
  readonly drivers: DriverTable;
  readonly exporters: Readonly<Record<string, ExporterModule>>;
}

export const SERVICES = "libstorage.server.services";

/** Names as spelled in the file, with the scope each service is seen through. */
function namesOfServices(tree: ConfigTree, scopes: readonly string[]): readonly string[] {
  const outer = scopes.filter((scope) => !scope.startsWith("libstorage"));
  const names = placesOf(outer, SERVICES).flatMap((place) => tree.names(place));
  const seen = new Map(names.map((name) => [name.toLowerCase(), name]));
  return [...seen.values()];
}

export function nearest(text: string, known: readonly string[]): string | undefined {
  const wanted = text.toLowerCase();
  let best: { readonly name: string; readonly far: number } | undefined;
  for (const name of known) {
    const far = distance(wanted, name.toLowerCase());
    if (best === undefined || far < best.far) best = { name, far };
  }
  return best !== undefined && best.far <= Math.max(2, Math.ceil(wanted.length / 4))
    ? best.name
    : undefined;
}

/** A name, and where it stands. */
interface Named {
  readonly path: string;
  readonly name: string;
}

/** What has a block of its own. */
type Block = Pick<DriverModule, "config">;

/** The driver's name as section 15.3 says, or nothing. */
export function driverOf(config: ScopedConfig, { drivers }: Modules): Named | undefined {
  for (const key of DRIVER_KEYS) {
    const found = config.find(key);
    if (found === undefined || found.value === "") continue;
    const name = String(found.value).trim().toLowerCase();
    // `libstorage.storage.driver: libstorage` is the client's own setting in a file for both sides.
    if (
      key === "libstorage.storage.driver" &&
      name === "libstorage" &&
      !Object.hasOwn(drivers, name)
    )
      continue;
    return { path: found.path, name };
  }
  return undefined;
}

export function readServices(
  source: ConfigSource,
  modules: Modules,
  check: Checker,
): readonly ServiceConfig[] {
  const names = namesOfServices(source.tree, source.server.scopes);
  if (names.length > 0)
    return names.flatMap((name) => readService(source, modules, check, name) ?? []);
  const driver = driverOf(source.server, modules);
  if (driver !== undefined) return [readService(source, modules, check, driver.name) ?? []].flat();
  const searched =
    source.files.length > 0 ? "" : ` (no configuration file in ${source.folders.etc})`;
  check.note(
    SERVICES,
    `no service is configured${searched}: name at least one, such as "vfs: {driver: vfs}"`,
  );
  return [];
}

function readService(
  source: ConfigSource,
  modules: Modules,
  check: Checker,
  spelled: string,
): ServiceConfig | undefined {
  const path = `${SERVICES}.${spelled}`;
  const name = spelled.toLowerCase();
  if (!SERVICE_NAME.test(name)) {
    check.note(
      path,
      "a service's name must consist of letters, digits, - and _, begin with a letter or digit, and have at most 64 characters",
    );
    return undefined;
  }
  const config = source.server.within(`${SERVICES}.${name}`);
  const driver = driverOf(config, modules);
  if (driver === undefined) {
    check.note(path, `error getting driver name: add "driver:" with ${listOf(modules.drivers)}`);
    return undefined;
  }
  const module = moduleOf("driver", modules.drivers, driver, check);
  if (module === undefined) return undefined;
  const own = <T>(spec: Parameters<typeof check.readAt<T>>[0]): T | undefined =>
    check.readAt(spec, config, placesOf(config.scopes.slice(-1), spec.key).slice(0, 1));
  const auth = readServiceAuth(source.server, config, `${SERVICES}.${name}`, check);
  const exporter = exporterOf(config);
  const exports = exporter && moduleOf("exporter", modules.exporters, exporter, check);
  const further = exportsOf(config)
    .filter(({ name: one }) => one !== exporter?.name)
    .map((one) => moduleOf("exporter", modules.exporters, one, check));
  const blockOf = (block: Block, of: string): unknown =>
    readBlock(source.tree, config, block, of, path, check);
  return {
    name,
    driver: driver.name,
    options: blockOf(module, driver.name),
    ...(exports !== undefined && {
      exporter: { name: exports.name, options: blockOf(exports, exports.name) },
    }),
    exports: further
      .filter((one) => one !== undefined)
      .map((one) => ({ name: one.name, options: blockOf(one, one.name) })),
    ...(auth !== undefined && { auth }),
    shareable: own(SERVICE_KEYS.shareable) ?? false,
    uniqueNames: own(SERVICE_KEYS.uniqueNames) ?? false,
  };
}

function listOf(table: object): string {
  return Object.keys(table).toSorted().join(", ");
}

/** The service's exporter, if it names one. */
export function exporterOf(config: ScopedConfig): Named | undefined {
  const found = config.findAt(placesOf(config.scopes.slice(-1), EXPORTER_KEY).slice(0, 1));
  if (typeof found?.value !== "string" || found.value === "") return undefined;
  return { path: found.path, name: found.value.trim().toLowerCase() };
}

/** The service's further exporters: a list, or names with commas between them. */
export function exportsOf(config: ScopedConfig): readonly Named[] {
  const found = config.findAt(placesOf(config.scopes.slice(-1), EXPORTS_KEY).slice(0, 1));
  if (found === undefined) return [];
  const { path, value } = found;
  const names = Array.isArray(value) ? value : String(value).split(",");
  const plain = names.map((name) => String(name).trim().toLowerCase()).filter((one) => one !== "");
  return [...new Set(plain)].map((name) => ({ path, name }));
}

/** A module of a table, by the name that stands at a path. */
function moduleOf<M>(
  what: "driver" | "exporter",
  table: Readonly<Record<string, M>>,
  { path, name }: Named,
  check: Checker,
): M | undefined {
  if (Object.hasOwn(table, name)) return table[name];
  const meant = nearest(name, Object.keys(table));
  const hint = meant === undefined ? `the ${what}s are ${listOf(table)}` : `did you mean ${meant}?`;
  check.note(path, `invalid ${what} name: ${name}; ${hint}`);
  return undefined;
}

/** A driver's or exporter's block: each of its keys is looked for by itself, so a service may override a single one. */
function readBlock(
  tree: ConfigTree,
  config: ScopedConfig,
  module: Block,
  owner: string,
  path: string,
  check: Checker,
): unknown {
  const block: Record<string, unknown> = {};
  const places = new Map<string, string>();
  for (const { key, type, isOpen } of keysOfSchema(module.config)) {
    const found = config.find(`${owner}.${key}`);
    const open = isOpen
      ? placesOf(config.scopes, `${owner}.${key}`).find((place) => tree.has(place))
      : undefined;
    if (found === undefined && open === undefined) continue;
    places.set(key.toLowerCase(), found?.path ?? open ?? key);
    put(block, key, found === undefined ? tree.toObject(open) : typed(found.value, type));
  }
  const result = v.safeParse(module.config, block);
  if (result.success) return result.output;
  for (const issue of result.issues) {
    const key = v.getDotPath(issue) ?? "";
    const known = [...places].find(([name]) => `${key.toLowerCase()}.`.startsWith(`${name}.`));
    const below = known === undefined ? "" : key.slice(known[0].length);
    const missing = issue.received === "undefined";
    check.note(
      known === undefined ? `${path}.${owner}.${key}` : `${known[1]}${below}`,
      missing ? "is missing" : issue.message,
    );
  }
  return undefined;
}

function put(block: Record<string, unknown>, key: string, value: unknown): void {
  const names = key.split(".");
  const last = names.pop() ?? key;
  let at = block;
  for (const name of names) at = (at[name] ??= {}) as Record<string, unknown>;
  at[last] = value;
}

/** Texts of the environment in the type that the driver's schema expects. */
function typed(value: unknown, type: string): unknown {
  if (typeof value !== "string") return value;
  if (type === "number" && /^-?\d+(?:\.\d+)?$/.test(value)) return Number(value);
  return type === "boolean" ? (booleanOf(value) ?? value) : value;
}
