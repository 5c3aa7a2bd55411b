/** A Docker plugin in this process, over a real server, asked over its socket. */
import { request } from "node:http";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import {
  loadConfiguration,
  openDockerPlugin,
  openPluginLog,
  readModules,
} from "@libstorage/client/plugins";
import type { DockerPlugin, DockerPluginOptions } from "@libstorage/client/plugins";
import { readMountTable } from "@libstorage/client/host";
import { spawnSync } from "node:child_process";

export interface Answer {
  readonly status: number;
  readonly type: string;
  readonly text: string;
  /** The text as JSON, where it is. */
  readonly body: Record<string, unknown>;
}

export interface AskOptions {
  readonly method?: string;
  /** As it stands, in place of JSON. */
  readonly raw?: string;
  readonly signal?: AbortSignal;
}

/** One request on a plugin's socket. */
export function ask(
  socketPath: string,
  path: string,
  body: unknown = {},
  { method = "POST", raw, signal }: AskOptions = {},
): Promise<Answer> {
  const text = raw ?? JSON.stringify(body);
  return new Promise((resolve, reject) => {
    const asked = request(
      {
        socketPath,
        path: `/${path}`,
        method,
        agent: false,
        ...(signal !== undefined && { signal }),
        headers: { "Content-Length": Buffer.byteLength(text) },
      },
      (reply) => {
        let got = "";
        reply.on("data", (chunk) => (got += String(chunk)));
        reply.on("error", reject);
        reply.on("end", () => {
          let parsed: Record<string, unknown> = {};
          try {
            parsed = JSON.parse(got) as Record<string, unknown>;
          } catch {
            // Some answers are plain text.
          }
          const type = reply.headers["content-type"] ?? "";
          resolve({ status: reply.statusCode ?? 0, type, text: got, body: parsed });
        });
      },
    );
    asked.on("error", reject);
    asked.end(text);
  });
}

export interface TestPluginOptions extends Partial<Omit<DockerPluginOptions, "log">> {
  /** The server's address. */
  readonly host: string;
  /** The host's folders; two plugins of one folder are one host, one after the other. */
  readonly folder: string;
  readonly service?: string;
  readonly name?: string;
  readonly settings?: Readonly<Record<string, string>>;
}

export interface TestPlugin {
  readonly plugin: DockerPlugin;
  readonly socket: string;
  readonly log: Record<string, unknown>[];
  readonly call: (operation: string, body?: unknown, options?: AskOptions) => Promise<Answer>;
  /** The answer of a call that must succeed. */
  readonly ok: (operation: string, body?: unknown) => Promise<Record<string, unknown>>;
  /** The error of a call that must fail. */
  readonly err: (operation: string, body?: unknown) => Promise<string>;
  close(): Promise<void>;
}

export async function openPlugin(options: TestPluginOptions): Promise<TestPlugin> {
  const { host, folder, service = "vfs", name = "libstorage", settings, ...rest } = options;
  await mkdir(join(folder, "plugins"), { recursive: true });
  const socket = join(folder, "plugins", `${name}.sock`);
  const configuration = await loadConfiguration({
    env: { LIBSTORAGE_HOME: folder, LIBSTORAGE_CONFIG: "" },
    flags: { "libstorage.host": host, "libstorage.service": service, ...settings },
  });
  const [module] = readModules(configuration, {
    type: "docker",
    names: [],
    fallback: name,
    addressOf: () => `unix://${socket}`,
  });
  if (module === undefined) throw new Error("no module");
  const log: Record<string, unknown>[] = [];
  const plugin = await openDockerPlugin(module, {
    ...rest,
    log: openPluginLog({}, (line) => log.push(JSON.parse(line) as Record<string, unknown>)),
  });
  const call: TestPlugin["call"] = (operation, body, more) =>
    ask(socket, operation.includes(".") ? operation : `VolumeDriver.${operation}`, body, more);
  return {
    plugin,
    socket,
    log,
    call,
    async ok(operation, body) {
      const { status, text, body: answer } = await call(operation, body);
      if (status !== 200) throw new Error(`${operation}: ${status} ${text}`);
      return answer;
    },
    async err(operation, body) {
      const { status, text, body: answer } = await call(operation, body);
      if (status !== 500 || typeof answer["Err"] !== "string")
        throw new Error(`${operation} should have failed: ${status} ${text}`);
      return answer["Err"];
    },
    close: () => plugin.close(0),
  };
}

/** Mount points below a folder. */
export async function mountsBelow(folder: string): Promise<readonly string[]> {
  return (await readMountTable())
    .map(({ mountPoint }) => mountPoint)
    .filter((at) => at.startsWith(`${folder}/`));
}

/** For the end of a test that failed. */
export async function unmountBelow(folder: string): Promise<void> {
  for (const at of (await mountsBelow(folder)).toReversed()) spawnSync("umount", [at]);
}
