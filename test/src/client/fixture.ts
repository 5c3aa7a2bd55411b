/** A real server in this process for tests of the client, and the client's command line as a process. */
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { createServer } from "node:http";
import type { RequestListener, Server } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { ServerOptions } from "node:https";
import { mkdtemp, rm } from "node:fs/promises";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { DRIVERS, loadConfig, openApp, SILENT } from "@libstorage/server";
import type { App, DriverModule } from "@libstorage/server";

export const BIN = fileURLToPath(
  new URL("../../../packages/client/bin/libstorage.mjs", import.meta.url),
);
export const LSX = fileURLToPath(
  new URL("../../../packages/client/dist/executors/lsx-linux", import.meta.url),
);
export const SERVER_BIN = fileURLToPath(
  new URL("../../../packages/server/bin/libstorage-server.mjs", import.meta.url),
);

export interface TestServer {
  /** For `host`. */
  readonly host: string;
  readonly folder: string;
  readonly vfsRoot: string;
  readonly app: App;
  /** Every request's method and URL, with its headers as they came. */
  readonly requests: { readonly line: string; readonly rawHeaders: readonly string[] }[];
  /** Put in front of the application; answers true when it took the request. */
  intercept: ((...args: Parameters<RequestListener>) => boolean) | undefined;
  /** Breaks every connection. */
  cut(): void;
  close(): Promise<void>;
}

export interface TestServerOptions {
  /** Lines below `libstorage.server`. */
  readonly config?: string;
  /** How long each operation of the mock driver takes. */
  readonly mockDelayMs?: number;
  readonly tls?: ServerOptions;
  /** In place of the server's own, by name. */
  readonly drivers?: Readonly<Record<string, DriverModule>>;
}

export async function makeFolder(): Promise<string> {
  return mkdtemp(join(tmpdir(), "libstorage-client-"));
}

function configText(folder: string, { config = "", mockDelayMs = 0 }: TestServerOptions): string {
  return `
libstorage:
  server:
    endpoints:
      local:
        address: unix://${folder}/server.sock
    services:
      vfs:
        driver: vfs
        vfs:
          root: ${folder}/vfs
      mock:
        driver: mock
        mock:
          delayMs: ${mockDelayMs}
${config}
`;
}

export async function startServer(options: TestServerOptions = {}): Promise<TestServer> {
  const folder = await makeFolder();
  const drivers = { ...DRIVERS, ...options.drivers };
  const config = loadConfig(drivers, {
    text: configText(folder, options),
    env: { LIBSTORAGE_HOME: join(folder, "home") },
    isRoot: true,
    home: folder,
  });
  const app = await openApp(config, { log: SILENT, drivers });
  await app.ready;
  const requests: TestServer["requests"] = [];
  const listener: RequestListener = (req, res) => {
    requests.push({ line: `${req.method} ${req.url}`, rawHeaders: req.rawHeaders });
    if (server.intercept?.(req, res) !== true) app.handler(req, res);
  };
  const http: Server =
    options.tls === undefined ? createServer(listener) : createTlsServer(options.tls, listener);
  const host = await listen(http, options.tls === undefined ? `${folder}/server.sock` : undefined);
  const server: TestServer = {
    host,
    folder,
    vfsRoot: join(folder, "vfs"),
    app,
    requests,
    intercept: undefined,
    cut: () => http.closeAllConnections(),
    async close() {
      app.stop();
      http.closeAllConnections();
      await new Promise((resolve) => http.close(resolve));
      await app.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
  return server;
}

/** @returns the address to dial */
export async function listen(http: Server, socket?: string): Promise<string> {
  await new Promise<void>((resolve) => {
    if (socket === undefined) http.listen(0, "127.0.0.1", resolve);
    else http.listen(socket, resolve);
  });
  if (socket !== undefined) return `unix://${socket}`;
  return `tcp://127.0.0.1:${(http.address() as AddressInfo).port}`;
}

export interface Ran {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export function start(
  file: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv = {},
): ChildProcess {
  return spawn(process.execPath, [file, ...args], {
    env: { PATH: process.env["PATH"], ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
}

export async function ended(child: ChildProcess): Promise<Ran> {
  let stdout = "";
  let stderr = "";
  child.stdout?.on("data", (chunk) => (stdout += String(chunk)));
  child.stderr?.on("data", (chunk) => (stderr += String(chunk)));
  const code = await new Promise<number | null>((resolve) => child.once("close", resolve));
  return { code, stdout, stderr };
}

/** Runs a program of Node to its end. */
export async function run(
  file: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv = {},
): Promise<Ran> {
  return ended(start(file, args, env));
}
