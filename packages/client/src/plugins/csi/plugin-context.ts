/** What the parts of one plugin share. */
import type { PluginLog } from "../log.js";
import type { Backend } from "./backend.js";
import type { Pending } from "./pending.js";
import type { CsiSettings } from "./settings.js";

export interface PluginContext {
  readonly backend: Backend;
  readonly settings: CsiSettings;
  readonly pending: Pending;
  readonly log: PluginLog;
}
