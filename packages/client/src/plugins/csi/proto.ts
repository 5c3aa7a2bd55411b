/** The Container Storage Interface as a value: `proto/csi.proto`, read when the plugin starts. */
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { loadSync } from "@grpc/proto-loader";
import type { Options, ServiceDefinition } from "@grpc/proto-loader";

/** The version of the specification that the file follows. */
export const SPEC_VERSION = "1.12.0";

export const SERVICES = [
  "Identity",
  "Controller",
  "GroupController",
  "SnapshotMetadata",
  "Node",
] as const;
export type ServiceName = (typeof SERVICES)[number];

/** 64-bit numbers become numbers: no volume has 2^53 bytes, and what is larger is refused anyway. */
const OPTIONS: Options = { longs: Number, enums: String, defaults: true, oneofs: true };

/** The library and the bundle lie at different depths below the package. */
function protoFile(): string {
  const here = dirname(fileURLToPath(import.meta.url));
  for (let folder = here; folder !== "/"; folder = dirname(folder)) {
    const file = join(folder, "proto", "csi.proto");
    if (existsSync(file)) return file;
  }
  throw new Error(`there is no proto/csi.proto above ${here}: the package is not whole`);
}

export type CsiServices = Readonly<Record<ServiceName, ServiceDefinition>>;

let loaded: CsiServices | undefined;

/** Read once: it takes longer than all else at the start. */
export function loadServices(): CsiServices {
  loaded ??= readServices();
  return loaded;
}

function readServices(): CsiServices {
  const definitions = loadSync(protoFile(), OPTIONS);
  const entries = SERVICES.map((name) => [name, definitions[`csi.v1.${name}`]] as const);
  // The file has them all, which a test checks.
  return Object.fromEntries(entries) as CsiServices;
}
