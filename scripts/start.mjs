// Serves this checkout: vfs and mock services on a Unix socket and, with mutual TLS, on 127.0.0.1.
// Everything it keeps is below .state. `npm start [-- --port 7979]`
import { spawn } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { ROOT, SERVER, build, certificates, fail, install, say } from "./setup.mjs";

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

const server = spawn(process.execPath, [SERVER, "--config", config], {
  cwd: ROOT,
  env: { ...process.env, LIBSTORAGE_HOME: STATE },
  stdio: ["ignore", "pipe", "inherit"],
});
let isUp = false;
server.stdout.on("data", (text) => {
  process.stdout.write(text);
  if (isUp) return;
  isUp = true;
  console.log(`
It runs until Ctrl-C. In another terminal:

  cd ${ROOT}
  export LIBSTORAGE_HOME=${STATE}
  npx libstorage service ls
  npx libstorage volume create first --size 1
  npx libstorage volume ls
  npx libstorage --host https://127.0.0.1:${values.port} volume ls    # the same over mutual TLS
  curl --unix-socket ${SOCKET} http://localhost/services
`);
});
// The terminal sends Ctrl-C to both; a service manager only to this one.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"])
  process.on(signal, () => {
    if (signal !== "SIGINT" || !process.stdin.isTTY) server.kill(signal);
  });
server.on("exit", (code, signal) => {
  if (!isUp) console.error("\nThe server could not be started; the reason stands above.");
  process.exit(code ?? (signal === null ? 0 : 1));
});
