/** The CSI plugin: one socket, one service, in controller mode, node mode or both. */
import { access, constants } from "node:fs/promises";
import { join } from "node:path";
import { formatAddress, StorageError } from "@libstorage/model";
import { pathPart } from "../../host/mount-records.js";
import type { PluginLog } from "../log.js";
import type { PluginModule } from "../modules.js";
import { PluginHost } from "../plugin-host.js";
import type { PluginHostOptions } from "../plugin-host.js";
import { Backend } from "./backend.js";
import { controllerPublish } from "./controller-publish.js";
import { controllerSnapshots } from "./controller-snapshots.js";
import { controllerVolumes } from "./controller-volumes.js";
import { MOST_FROZEN_MS, thawLeftovers } from "./freeze.js";
import { groupController } from "./group-controller.js";
import { serveGrpc } from "./grpc-server.js";
import { identity } from "./identity.js";
import type { Handlers } from "./messages.js";
import { node } from "./node.js";
import { NodeRecords } from "./node-records.js";
import { NodeStorage } from "./node-storage.js";
import { OpenGroups } from "./open-groups.js";
import { Pending } from "./pending.js";
import { readCsiSettings } from "./settings.js";
import type { CsiMode } from "./settings.js";
import type { ServiceName } from "./proto.js";
import { serviceBlocks } from "./snapshot-blocks.js";
import { snapshotMetadata } from "./snapshot-metadata.js";
import type { SnapshotBlocks } from "./snapshot-metadata.js";

export interface CsiPlugin {
  readonly name: string;
  /** Where it listens, for people. */
  readonly address: string;
  /** The server it works with. */
  readonly server: string;
  readonly mode: CsiMode;
  /** Lets running calls finish for `graceMs`. What is mounted stays mounted. */
  close(graceMs: number): Promise<void>;
}

export interface CsiPluginOptions extends Omit<PluginHostOptions, "settings"> {
  readonly log: PluginLog;
  /** What knows the blocks of snapshots; default is the service. */
  readonly blocks?: SnapshotBlocks;
  /** How long file systems are kept frozen at most; default 30,000. */
  readonly mostFrozenMs?: number;
}

/** What the specification calls a service, by the plugin's mode. */
const SERVICES: Readonly<Record<CsiMode, readonly ServiceName[]>> = {
  all: ["Identity", "Controller", "GroupController", "SnapshotMetadata", "Node"],
  controller: ["Identity", "Controller", "GroupController", "SnapshotMetadata"],
  node: ["Identity", "Node"],
};

/** Opens the plugin. Asks no server: it answers from its first moment on. @throws {StorageError} */
export async function openCsiPlugin(
  { address, settings, reader }: PluginModule,
  { log, blocks: given, mostFrozenMs = MOST_FROZEN_MS, ...hostOptions }: CsiPluginOptions,
): Promise<CsiPlugin> {
  const own = readCsiSettings(reader);
  if (address.kind !== "unix")
    throw new StorageError(
      "invalid-argument",
      `${formatAddress(address)} is no Unix socket, and the specification knows no other endpoint: write unix:///PATH`,
    );
  const warn = (text: string): void => log.warn({}, text);
  const host = new PluginHost({ settings, warn, ...hostOptions });
  const backend = new Backend(host, own.infoMs);
  const blocks = given ?? serviceBlocks(backend, host.content);
  const context = { backend, settings: own, pending: new Pending(), log };
  const folder = join(settings.folders.lib, "csi", pathPart(own.driverName));
  const records = new NodeRecords(folder);
  const openGroups = new OpenGroups(`${folder}.groups`);
  const storage = new NodeStorage(backend, host.executors, own.fsType);
  const nodeContext = { ...context, records, storage };
  const isNode = own.mode !== "controller";
  const missing = (): Promise<string | undefined> =>
    isNode ? lacking(settings.folders.lib) : Promise.resolve(undefined);
  const handlers: Handlers = {
    ...identity(context, { missing, ...(given !== undefined && { blocks: given }) }),
    ...controllerVolumes(context),
    ...controllerPublish(context),
    ...controllerSnapshots(context),
    ...groupController({ ...nodeContext, openGroups, mostFrozenMs }),
    ...snapshotMetadata(blocks),
    ...node(nodeContext),
  };
  if (isNode) await thawLeftovers(nodeContext);
  const ending = new AbortController();
  const { changeMs, readMs } = own;
  const limits = { changeMs, readMs, signal: ending.signal };
  const services = SERVICES[own.mode];
  const server = await serveGrpc(address.path, { handlers, services, log, ...limits });
  return {
    name: own.driverName,
    address: formatAddress(address),
    server: host.address,
    mode: own.mode,
    async close(graceMs) {
      await server.close(graceMs);
      ending.abort();
      host.close();
    },
  };
}

/** Why this host cannot be a node, or undefined. */
async function lacking(libFolder: string): Promise<string | undefined> {
  if (process.geteuid?.() !== 0)
    return "the plugin does not run as root, so it cannot mount volumes";
  const tools = ["mount", "umount"];
  for (const tool of tools) {
    const places = (process.env["PATH"] ?? "/usr/sbin:/usr/bin:/sbin:/bin").split(":");
    const found = await Promise.all(
      places.map((place) =>
        access(join(place, tool), constants.X_OK).then(
          () => true,
          () => false,
        ),
      ),
    );
    if (!found.includes(true)) return `${tool} is not installed on this host`;
  }
  // Made with the first volume; what stands in its way is told now.
  return access(libFolder, constants.W_OK).then(
    () => undefined,
    (error: NodeJS.ErrnoException) =>
      error.code === "ENOENT" ? undefined : `${libFolder} cannot be written: ${error.code}`,
  );
}
