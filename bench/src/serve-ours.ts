/**
 * This project's server over one root: `node serve-ours.js STATE ROOT [DRIVER]`, by default vfs, which also
 * names the service. Prints its URL when ready.
 */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { SILENT, loadConfig, openApp, DRIVERS } from "@libstorage/server";

const [, , state = "", root = "", driver = "vfs"] = process.argv;
const config = loadConfig(DRIVERS, {
  env: { LIBSTORAGE_HOME: state },
  text: JSON.stringify({
    libstorage: {
      server: {
        endpoints: { tcp: { address: "tcp://127.0.0.1:7979" } },
        services: { [driver]: { driver, [driver]: { root } } },
      },
    },
  }),
});
const app = await openApp(config, { log: SILENT });
await app.ready;
const server = createServer(app.handler);
server.keepAliveTimeout = 60_000;
server.listen(0, "127.0.0.1", () => {
  process.stdout.write(`http://127.0.0.1:${(server.address() as AddressInfo).port}\n`);
});
process.on("SIGTERM", () => {
  server.close();
  server.closeAllConnections();
  void app.close();
});
