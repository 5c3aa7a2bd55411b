/** The Docker volume plugin: one name, one address, one service. */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { formatAddress } from "@libstorage/model";
import { settleMounts } from "../../host/settle.js";
import type { PluginLog } from "../log.js";
import type { PluginModule } from "../modules.js";
import { PluginHost } from "../plugin-host.js";
import type { PluginHostOptions } from "../plugin-host.js";
import { openPluginServer } from "../plugin-server.js";
import type { PluginServer } from "../plugin-server.js";
import { openHandler } from "./http-handler.js";
import { Names } from "./names.js";
import { readDockerSettings } from "./settings.js";
import type { DockerSettings } from "./settings.js";
import { writeSpec } from "./spec-file.js";
import { VolumeDriver } from "./volume-driver.js";

export interface DockerPlugin {
  readonly name: string;
  /** Where it listens, for people. */
  readonly address: string;
  /** The server it works with. */
  readonly server: string;
  /** Lets running calls finish for `graceMs`. What is mounted stays mounted. */
  close(graceMs: number): Promise<void>;
}

export interface DockerPluginOptions extends Omit<PluginHostOptions, "settings"> {
  readonly log: PluginLog;
}

const SETTLE_EVERY_MS = 15_000;
const SETTLE_LIMIT_MS = 60_000;
const REMEMBER_REMOVALS_MS = 3_600_000;

/** Where daemons look, see the documentation of Docker's plugin discovery. */
export function dockerAddress(name: string): string {
  return `unix:///run/docker/plugins/${name}.sock`;
}

/** Opens the plugin. Asks no server: it answers from its first moment on. @throws {StorageError} */
export async function openDockerPlugin(
  { name, address, settings, reader }: PluginModule,
  { log, ...hostOptions }: DockerPluginOptions,
): Promise<DockerPlugin> {
  const own = readDockerSettings(reader);
  const warn = (text: string): void => log.warn({}, text);
  const host = new PluginHost({ settings, warn, ...hostOptions });
  const names = new Names(join(settings.folders.lib, "docker", name.toLowerCase()));
  const ending = new AbortController();
  const { limits, serverWaitMs } = own;
  const driver = new VolumeDriver({ host, names, log, serverWaitMs });
  const handler = openHandler({ driver, log, limits, signal: ending.signal });
  const server = await openPluginServer(address, own.tls, handler);
  const removeSpec = await announce(name, server, own).catch(async (error: unknown) => {
    await server.close(0);
    throw error;
  });
  const settling = settle(host, names, log, ending.signal);
  return {
    name,
    address: formatAddress(server.address),
    server: host.address,
    async close(graceMs) {
      await removeSpec();
      await server.close(graceMs);
      ending.abort();
      await settling;
      host.close();
    },
  };
}

async function announce(
  name: string,
  { address }: PluginServer,
  { daemon, specFolder: folder }: DockerSettings,
): Promise<() => Promise<void>> {
  if (address.kind === "unix") return async () => {};
  return writeSpec({ folder, name, address, ...(daemon !== undefined && { daemon }) });
}

/** Clears up after an earlier process, at once and then as long as there is something left to do. */
async function settle(
  host: PluginHost,
  names: Names,
  log: PluginLog,
  signal: AbortSignal,
): Promise<void> {
  let lastError = "";
  while (!signal.aborted) {
    // A limit by AbortSignal.timeout would go with the garbage: `any` does not hold it.
    const timeUp = new AbortController();
    const timer = setTimeout(() => timeUp.abort(), SETTLE_LIMIT_MS).unref();
    try {
      await names.sweep(REMEMBER_REMOVALS_MS);
      const context = { signal: AbortSignal.any([signal, timeUp.signal]) };
      const volumes = await host.volumes(context);
      // Looking into a folder that is not there costs more than looking into an empty one.
      await mkdir(volumes.local.records.folder, { recursive: true, mode: 0o755 });
      await settleMounts(volumes, context, ({ error, ...settled }) => {
        const text = error instanceof Error ? error.message : undefined;
        if (text === undefined) log.info({ ...settled }, "cleared up after an earlier call");
        else if (text !== lastError && !signal.aborted)
          log.warn({ ...settled, error: text }, "could not clear up; trying again");
        lastError = text ?? lastError;
      });
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error);
      if (text !== lastError && !signal.aborted)
        log.warn({ error: text }, "could not look what was left; trying again");
      lastError = text;
    } finally {
      clearTimeout(timer);
    }
    await sleep(SETTLE_EVERY_MS, undefined, { signal, ref: false }).catch(() => {});
  }
}
