/** What this host's storage daemon can do, by its own word: its schema, never its version. */
import { join } from "node:path";
import * as v from "valibot";
import { StorageError } from "@libstorage/model";
import type { OpContext } from "../../core/driver.js";
import { monitorIn, startIn, stopIn } from "./process.js";
import { Qmp } from "./qmp.js";

const Schema = v.array(
  v.looseObject({
    name: v.string(),
    "meta-type": v.string(),
    "arg-type": v.optional(v.string()),
    variants: v.optional(v.array(v.object({ case: v.string(), type: v.string() }))),
    members: v.optional(v.array(v.looseObject({ name: v.optional(v.string()) }))),
  }),
);

export interface Features {
  readonly commands: ReadonlySet<string>;
  /** The types of exports, such as `fuse`, and the options that each takes beside those of all. */
  readonly exports: ReadonlyMap<string, ReadonlySet<string>>;
}

/** Reads the answer of `query-qmp-schema`. @see QEMU, qapi/introspect.json */
export function featuresOf(schema: unknown): Features {
  const entities = v.parse(Schema, schema);
  const byName = new Map(entities.map((one) => [one.name, one]));
  const commands = entities.filter((one) => one["meta-type"] === "command");
  const adding = commands.find(({ name }) => name === "block-export-add");
  const { variants = [] } = byName.get(adding?.["arg-type"] ?? "") ?? {};
  const optionsOf = (type: string): ReadonlySet<string> =>
    new Set((byName.get(type)?.members ?? []).flatMap(({ name }) => name ?? []));
  return {
    commands: new Set(commands.map(({ name }) => name)),
    exports: new Map(variants.map((one) => [one.case, optionsOf(one.type)])),
  };
}

/** Asks a daemon that was started for it. @throws {StorageError} `failed-precondition` when there is none */
export async function probeFeatures(folder: string, context: OpContext): Promise<Features> {
  const own = join(folder, "probe");
  await startIn(own, {}, context);
  let qmp: Qmp | undefined;
  try {
    qmp = await Qmp.connect(monitorIn(own));
    return featuresOf(await qmp.execute("query-qmp-schema"));
  } finally {
    qmp?.close();
    await stopIn(own, context);
  }
}

/** @throws {StorageError} `unimplemented` for what the daemon says it does not know */
export function needExport(
  { exports }: Features,
  type: string,
  options: readonly string[] = [],
): void {
  const known = exports.get(type);
  if (known === undefined)
    throw new StorageError(
      "unimplemented",
      `the qemu-storage-daemon of this host cannot export as ${type}: its schema (query-qmp-schema) has ${[...exports.keys()].join(", ")} only; install a QEMU that was built with it`,
      { exporter: type, has: [...exports.keys()] },
    );
  const missing = options.filter((option) => !known.has(option));
  if (missing.length > 0)
    throw new StorageError(
      "unimplemented",
      `the qemu-storage-daemon of this host does not know ${missing.join(", ")} of ${type} exports, as its schema (query-qmp-schema) says; install a later QEMU`,
      { exporter: type, missing },
    );
}

/** @throws {StorageError} `unimplemented` for a daemon that says it does not know them */
export function needCommands(
  { commands }: Features,
  needed: readonly string[],
  what: string,
): void {
  const missing = needed.filter((command) => !commands.has(command));
  if (missing.length === 0) return;
  throw new StorageError(
    "unimplemented",
    `the qemu-storage-daemon of this host cannot ${what} while it is exported: its schema (query-qmp-schema) has no ${missing.join(", ")}; install a later QEMU, or detach the volume first`,
    { missing },
  );
}
