/**
 * This project's server over the group `vg0`, with a thin and a thick service: `node serve-lvm.js STATE`. Prints
 * its URL when ready. `GET /commands` tells the commands that it has run, as JSON.
 */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { DRIVERS, SILENT, loadConfig, openApp } from "@libstorage/server";
import type { CommandRun, Logger } from "@libstorage/server";

const [, , state = ""] = process.argv;
/** The bench looks at nothing by hand, so neither does the server. */
const QUIET = { volumeGroup: "vg0", watchSeconds: 3600, pool: { checkSeconds: 600 } };
const config = loadConfig(DRIVERS, {
  env: { LIBSTORAGE_HOME: state },
  text: JSON.stringify({
    libstorage: {
      server: {
        endpoints: { tcp: { address: "tcp://127.0.0.1:7979" } },
        services: {
          thin: {
            driver: "lvm-iscsi",
            "lvm-iscsi": { ...QUIET, thinPool: "pool", prefix: "thin-" },
          },
          thick: { driver: "lvm-iscsi", "lvm-iscsi": { ...QUIET, prefix: "thick-" } },
        },
      },
    },
  }),
});

const commands: string[] = [];
const counting: Logger = {
  ...SILENT,
  debug: (fields: unknown, text?: string) => {
    if (text !== "command") return;
    const { file, args } = fields as CommandRun;
    commands.push([file, ...args].join(" "));
  },
  child: () => counting,
};
const app = await openApp(config, { log: counting });
await app.ready;
const server = createServer((request, response) => {
  if (request.url === "/commands") response.end(JSON.stringify(commands));
  else app.handler(request, response);
});
server.keepAliveTimeout = 60_000;
server.listen(0, "127.0.0.1", () => {
  process.stdout.write(`http://127.0.0.1:${(server.address() as AddressInfo).port}\n`);
});
process.on("SIGTERM", () => {
  server.close();
  server.closeAllConnections();
  void app.close();
});
