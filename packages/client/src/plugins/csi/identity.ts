/** The Identity service. */
import { VERSION } from "../../version.js";
import { pluginCapabilities } from "./capabilities.js";
import type { Handlers } from "./messages.js";
import type { PluginContext } from "./plugin-context.js";
import { SPEC_VERSION } from "./proto.js";
import { knowsBlocks } from "./snapshot-blocks.js";
import type { SnapshotBlocks } from "./snapshot-metadata.js";
import { CsiError, textOf } from "./status.js";

export interface IdentityOptions {
  readonly blocks?: SnapshotBlocks;
  /** What this host lacks for the plugin to work, or undefined. */
  readonly missing: () => Promise<string | undefined>;
}

export function identity(context: PluginContext, { blocks, missing }: IdentityOptions): Handlers {
  const { backend, settings, log } = context;
  return {
    GetPluginInfo: async () => ({
      name: settings.driverName,
      vendorVersion: VERSION,
      manifest: { "csi.specification": SPEC_VERSION },
    }),
    GetPluginCapabilities: async (_request, signal) => {
      const info = await backend.info(signal);
      return {
        capabilities: pluginCapabilities(info, settings, {
          hasTopology: Object.keys(settings.topology).length > 0,
          hasSnapshotMetadata: blocks !== undefined || (await knowsBlocks(backend, signal)),
        }),
      };
    },
    // Restarting the plugin does not bring a server back, so one that is away makes it not ready, not unhealthy.
    Probe: async (_request, signal) => {
      const lacking = await missing();
      if (lacking !== undefined) throw new CsiError("FAILED_PRECONDITION", lacking);
      try {
        const { calls, name } = await backend.service(signal);
        await calls.serviceInspect({ service: name }, undefined, { signal });
        return { ready: { value: true } };
      } catch (error) {
        log.warn({ error: textOf(error) }, "the service does not answer");
        return { ready: { value: false } };
      }
    },
  };
}
