/** The CSI plugin that the configuration asks for. */
import { StorageError } from "@libstorage/model";
import type { Configuration } from "../../settings.js";
import { openPluginLog } from "../log.js";
import { readModules } from "../modules.js";
import { openCsiPlugin } from "./csi-plugin.js";
import type { CsiPlugin } from "./csi-plugin.js";

export interface CsiServeOptions {
  /** Of the module; default is the only one of type csi, or one of that name. */
  readonly name?: string;
  readonly endpoint?: string;
}

const FALLBACK = "csi";

/** @throws {StorageError} */
export async function openCsiModule(
  configuration: Configuration,
  { name, endpoint }: CsiServeOptions,
): Promise<CsiPlugin> {
  const modules = readModules(configuration, {
    type: "csi",
    names: name === undefined ? [] : [name],
    fallback: FALLBACK,
    addressOf: (module) => `unix:///run/csi/${module}.sock`,
    ...(endpoint !== undefined && { listen: endpoint }),
  });
  const [module] = modules;
  if (module === undefined || modules.length > 1)
    throw new StorageError(
      "invalid-argument",
      `a process serves one CSI plugin, and there are ${modules.map((one) => one.name).join(", ")}: name one`,
    );
  return openCsiPlugin(module, { log: openPluginLog({ plugin: module.name }) });
}
