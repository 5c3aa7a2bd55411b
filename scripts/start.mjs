// Serves this checkout: vfs and mock services on a Unix socket and, with mutual TLS, on 127.0.0.1.
// Everything it keeps is below .state. `npm start [-- --port 7979]`
import { mkdirSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { parseArgs } from "node:util";
import { ROOT, build, certificates, fail, install, say } from "./setup.mjs";

const { values } = parseArgs({ options: { port: { type: "string", default: "7979" } } });
if (!/^\d{1,5}$/.test(values.port)) fail(`--port ${values.port} is no port`);

const STATE = join(ROOT, ".state");
const SOCKET = join(STATE, "libstorage.sock");

const tlsBlock = (side) => `    tls:
      certFile: ${JSON.stringify(join(ROOT, `.tls/${side}.crt`))}
      keyFile: ${JSON.stringify(join(ROOT, `.tls/${side}.key`))}
      trustedCertsFile: ${JSON.stringify(join(ROOT, ".tls/cacerts"))}
`;

/** One file for both sides, as the reference's own have it. */
const CONFIG = `# Made by "npm start", which writes it anew each time. See docs/configuration.md.
libstorage:
  host: ${JSON.stringify(`unix://${SOCKET}`)}
  service: vfs
  client:
${tlsBlock("client")}  server:
${tlsBlock("server")}      clientCertRequired: true
    endpoints:
      local:
        address: ${JSON.stringify(`unix://${SOCKET}`)}
      mutual-tls:
        address: tcp://127.0.0.1:${values.port}
    services:
      vfs:
        driver: vfs
      mock:
        driver: mock
`;

install();
say("build");
build();
certificates();
mkdirSync(join(STATE, "etc"), { recursive: true });
const config = join(STATE, "etc/config.yml");
writeFileSync(config, CONFIG);

process.chdir(ROOT);
process.env["LIBSTORAGE_HOME"] = STATE;
const { main } = await import("../packages/server/dist/main.js");

// npm does not always pass on the signal that ends it, and a server without its terminal would stay behind.
if (process.env["npm_lifecycle_event"] !== undefined) {
  const parent = process.ppid;
  setInterval(() => {
    if (process.ppid !== parent) process.kill(process.pid, "SIGTERM");
  }, 500).unref();
}

const HINTS = `
It runs until Ctrl-C. In another terminal:

  cd ${ROOT}
  export LIBSTORAGE_HOME=${STATE}
  npx libstorage service ls
  npx libstorage volume create first --size 1
  npx libstorage volume ls
  npx libstorage --host https://127.0.0.1:${values.port} volume ls    # the same over mutual TLS
  curl --unix-socket ${SOCKET} http://localhost/services
`;

/** Whether the server answers. */
function answers() {
  return new Promise((resolve) => {
    const socket = connect(SOCKET);
    socket.once("connect", () => resolve(socket.destroy() !== undefined));
    socket.once("error", () => resolve(false));
  });
}

if (await answers()) fail(`a server of this checkout runs already, on ${SOCKET}: stop it first`);
const ended = main(["serve", "--config", config]);
const isEnded = ended.then(() => true);
while (!(await Promise.race([answers(), isEnded]))) await setTimeout(50);
if ((await Promise.race([isEnded, setTimeout(0, false)])) === false) console.log(HINTS);
const code = await ended;
if (code !== 0)
  console.error(
    "\nThe reason stands above. Is the port taken? Choose another: npm start -- --port 7980",
  );
process.exit(code);
