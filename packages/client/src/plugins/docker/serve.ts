/** All Docker plugins of one process. */
import { StorageError } from "@libstorage/model";
import { runCommand } from "../../executor/exec.js";
import type { Configuration } from "../../settings.js";
import { openPluginLog } from "../log.js";
import { readModules } from "../modules.js";
import { dockerAddress, openDockerPlugin } from "./index.js";
import type { DockerPlugin } from "./index.js";

export interface ServeOptions {
  readonly names: readonly string[];
  /** In place of the configured address, for a single plugin. */
  readonly listen?: string;
}

/** Opens all or none. @throws {StorageError} */
export async function openDockerPlugins(
  configuration: Configuration,
  { names, listen }: ServeOptions,
): Promise<readonly DockerPlugin[]> {
  const modules = readModules(configuration, {
    type: "docker",
    names,
    fallback: "libstorage",
    addressOf: dockerAddress,
    ...(listen !== undefined && { listen }),
  });
  if (listen !== undefined && modules.length > 1)
    throw new StorageError(
      "invalid-argument",
      `--listen is for one plugin, and there are ${modules.map(({ name }) => name).join(", ")}: name one`,
    );
  const open: DockerPlugin[] = [];
  try {
    for (const module of modules)
      open.push(await openDockerPlugin(module, { log: openPluginLog({ plugin: module.name }) }));
  } catch (error) {
    await Promise.all(open.map((plugin) => plugin.close(0)));
    throw error;
  }
  await tellSystemd();
  return open;
}

/** systemd starts what comes after this unit only then; see sd_notify(3). */
async function tellSystemd(): Promise<void> {
  if (process.env["NOTIFY_SOCKET"] === undefined) return;
  await runCommand("systemd-notify", ["--ready"], { signal: AbortSignal.timeout(10_000) }).catch(
    () => {},
  );
}
