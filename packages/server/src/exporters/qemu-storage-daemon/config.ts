/** The keys of every exporter that is served by storage daemons. Those of one service share daemons by them. */
import { isAbsolute } from "node:path";
import * as v from "valibot";
import { StorageError } from "@libstorage/model";

export const absolutePath = v.pipe(
  v.string(),
  v.check((path) => isAbsolute(path), "must be an absolute path"),
  v.check((path) => !/[\0\n]/.test(path), "must not have a NUL or a line break"),
);

export const DAEMON_KEYS = {
  encryptionKeyFile: v.optional(
    v.pipe(
      absolutePath,
      v.description(
        "The file with the passphrase of encrypted volumes, the driver's. What is exported is the disk in clear.",
      ),
    ),
  ),
  daemonFolder: v.optional(
    v.pipe(
      absolutePath,
      v.description(
        "The folder of the storage daemons, one below it for each of them. Its path must be short. The exporters of a service that name the same one share daemons, and so volumes. Default `<lib>/qsd`.",
      ),
    ),
  ),
  daemonFor: v.optional(
    v.pipe(
      v.picklist(["volume", "service"]),
      v.description(
        "What has a storage daemon of its own: each `volume` that is exported, so that none is hit by another's crash or load, for a process and about 1.5 MB of memory each; or the `service`, so that all its volumes share one process, one CPU, one limit of memory and its end, which is a pause for them all. The same for all exporters of the service.",
      ),
    ),
    "volume",
  ),
  daemonUser: v.optional(
    v.pipe(
      v.string(),
      v.regex(/^[a-z_][a-z0-9_-]{0,31}$/, "must be the name of a user"),
      v.description(
        "The user as whom storage daemons run. The server gives it the images that are exported, and lets it through their folders; to block devices it has to have access already (on Debian: group disk). Default: the server's.",
      ),
    ),
  ),
  daemonMemory: v.optional(
    v.pipe(
      v.string(),
      v.regex(/^\d+(?:[kmgt]i?b?)?$/i, "must be a size, such as 512MiB"),
      v.description(
        "The most address space that one storage daemon may take: with `daemonFor: service` for all volumes together. Default: no limit.",
      ),
    ),
  ),
} as const;

export const DaemonConfig = v.object(DAEMON_KEYS);
export type DaemonConfig = v.InferOutput<typeof DaemonConfig>;

/** What an exporter says of its daemons. */
export interface DaemonWishes {
  readonly exporter: string;
  readonly config: DaemonConfig;
}

const SAME = ["daemonFor", "encryptionKeyFile", "daemonUser", "daemonMemory"] as const;

/**
 * Exporters of one folder have the same daemons, each of which is started with the keys of one of them.
 * @throws {StorageError} `failed-precondition` for exporters that want them to differ
 */
export function checkSame(first: DaemonWishes, other: DaemonWishes, service: string): void {
  const key = SAME.find((one) => first.config[one] !== other.config[one]);
  if (key === undefined) return;
  const said = ({ exporter, config }: DaemonWishes): string =>
    config[key] === undefined ? `${exporter} has none` : `${exporter} has ${config[key]}`;
  throw new StorageError(
    "failed-precondition",
    `the exporters ${first.exporter} and ${other.exporter} of service ${service} share storage daemons, so they need the same "${key}": ${said(first)}, ${said(other)}; set it alike for both`,
    { service, key, exporters: [first.exporter, other.exporter] },
  );
}
