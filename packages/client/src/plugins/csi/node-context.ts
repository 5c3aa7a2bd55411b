import type { NodeRecords } from "./node-records.js";
import type { NodeStorage } from "./node-storage.js";
import type { PluginContext } from "./plugin-context.js";

/** What the parts of the Node service share. */
export interface NodeContext extends PluginContext {
  readonly records: NodeRecords;
  readonly storage: NodeStorage;
}
