/** A client that is killed right after a command of its own: `nbd-killed.js FOLDER COMMAND ATTACHED`. */
import { openExecutor } from "@libstorage/client/host";
import type { Attached } from "@libstorage/client/host";
import { contextFor } from "./nbd-host.js";

const [folder = "", command = "", attached = ""] = process.argv.slice(2);
const context = contextFor(folder, { nbd: { client: "kernel" } });
const executor = openExecutor("image", {
  ...context,
  exec: async (file, args, options) => {
    const result = await context.exec(file, args, options);
    if (file.endsWith(command)) process.kill(process.pid, "SIGKILL");
    return result;
  },
});
await executor?.connect?.(JSON.parse(attached) as Attached, {
  timeoutMs: 300_000,
  signal: AbortSignal.timeout(300_000),
});
