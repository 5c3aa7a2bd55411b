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
  const { backend, settings } = context;
  let hasBegun = settings.mode !== "controller";
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
    // Whoever asks restarts a plugin that is not ready, which brings no server back, and takes away what works
    // without one. So a controller is not ready until it has reached its service for the first time, which its
    // sidecars wait for before they ask what it can do; after that, and on a node, it is what it is itself.
    Probe: async (_request, signal) => {
      const lacking = await missing();
      if (lacking !== undefined) throw new CsiError("FAILED_PRECONDITION", lacking);
      hasBegun ||= await answers(context, signal);
      return { ready: { value: hasBegun } };
    },
  };
}

async function answers({ backend, log }: PluginContext, signal: AbortSignal): Promise<boolean> {
  try {
    const { calls, name } = await backend.service(signal);
    await calls.serviceInspect({ service: name }, undefined, { signal });
    return true;
  } catch (error) {
    log.warn({ error: textOf(error) }, "the service has not answered yet");
    return false;
  }
}
