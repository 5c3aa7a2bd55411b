/** `@libstorage/client/plugins`: front-ends that run where the device must appear. */
export * from "./docker/index.js";
export { knownOptions } from "./docker/options.js";
export { readModules } from "./modules.js";
export type { ModuleRequest, PluginModule } from "./modules.js";
export { openPluginLog } from "./log.js";
export type { PluginLog } from "./log.js";
export { loadConfiguration } from "../settings.js";
