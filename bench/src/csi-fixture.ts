/** A CSI plugin as a process, over a server as a process. */
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { credentials, makeGenericClientConstructor } from "@grpc/grpc-js";
import type { ServiceError } from "@grpc/grpc-js";
import { loadServices } from "@libstorage/client/csi";
import { onEnd, serveReally, workFolder } from "./fixture.js";

const CLI = fileURLToPath(new URL("../../packages/client/bin/libstorage.mjs", import.meta.url));

export interface Reply {
  readonly nodeId?: string;
  readonly volume?: { readonly volumeId: string };
  readonly publishContext?: Readonly<Record<string, string>>;
  readonly entries?: readonly unknown[];
}
type Unary = (request: object, done: (error: ServiceError | null, reply: Reply) => void) => void;

export interface Plugin {
  readonly folder: string;
  readonly process: ChildProcess;
  readonly call: (name: string, request?: object) => Promise<Reply>;
  stop(): Promise<void>;
}

/**
 * @param service its driver, which has the service's name, and the driver's own keys, as the configuration has them
 * @param prepare fills the service's root before the server starts
 */
export async function openPlugin(
  { driver, ...keys }: { readonly driver: string; readonly [key: string]: unknown },
  prepare: (root: string) => void = () => {},
): Promise<Plugin> {
  const folder = workFolder();
  const root = join(folder, driver);
  prepare(root);
  const server = await serveReally(join(folder, "home"), root, driver, keys);
  const socket = join(folder, "csi.sock");
  const address = ["--endpoint", `unix://${socket}`, "--host", `unix://${server.url}`];
  const child = spawn(process.execPath, [CLI, "plugin", "csi", ...address, "-s", driver], {
    stdio: ["ignore", "pipe", "ignore"],
    env: { ...process.env, LIBSTORAGE_HOME: join(folder, "host") },
  });
  onEnd(() => child.kill("SIGKILL"));
  for await (const line of createInterface({ input: child.stdout }))
    if (line.startsWith("ready")) break;
  const { call, close } = connect(socket);
  return {
    folder,
    process: child,
    call,
    async stop() {
      close();
      const ended = once(child, "exit");
      child.kill("SIGTERM");
      await ended;
      await server.stop();
    },
  };
}

function connect(socket: string): Pick<Plugin, "call"> & { readonly close: () => void } {
  const clients = Object.entries(loadServices()).map(([name, definition]) => {
    const Client = makeGenericClientConstructor(definition, name);
    const client = new Client(`unix://${socket}`, credentials.createInsecure());
    return { client, calls: new Set(Object.keys(definition)) };
  });
  return {
    call(name, request = {}) {
      const client = clients.find(({ calls }) => calls.has(name))?.client;
      if (client === undefined) return Promise.reject(new Error(`there is no call ${name}`));
      const unary = (client[name] as Unary).bind(client);
      return new Promise((resolve, reject) => {
        unary(request, (error, reply) => {
          if (error === null) resolve(reply);
          else reject(error);
        });
      });
    },
    close() {
      for (const { client } of clients) client.close();
    },
  };
}
