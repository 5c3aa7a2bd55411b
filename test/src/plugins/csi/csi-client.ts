/** A gRPC client of a CSI plugin, and the plugin itself in this process. */
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { credentials, makeGenericClientConstructor, status } from "@grpc/grpc-js";
import type { ServiceError } from "@grpc/grpc-js";
import { loadServices, openCsiPlugin, SERVICES } from "@libstorage/client/csi";
import type { CsiPlugin, CsiPluginOptions, SnapshotBlocks } from "@libstorage/client/csi";
import { loadConfiguration, openPluginLog, readModules } from "@libstorage/client/plugins";
import type { Exec } from "@libstorage/client/host";
import type { VolumeService } from "@libstorage/model";

// The tests see the protocol as any client does: as plain objects.
// oxlint-disable-next-line typescript/no-explicit-any
export type Message = any;

export class Failed extends Error {
  readonly code: string;

  constructor(call: string, { code, details }: ServiceError) {
    super(`${call}: ${status[code]}: ${details}`);
    this.code = status[code] ?? String(code);
  }
}

type Unary = (
  request: object,
  options: { deadline: number },
  done: (error: ServiceError | null, reply: Message) => void,
) => void;

const LIMIT_MS = 60_000;

export interface CsiClient {
  /** One call with one answer. @throws {Failed} */
  readonly call: (name: string, request?: object) => Promise<Message>;
  /** All messages of a stream. @throws {Failed} */
  readonly stream: (name: string, request?: object) => Promise<Message[]>;
  readonly close: () => void;
}

/** @param limitMs how long a call may take */
export function openCsiClient(socket: string, limitMs = LIMIT_MS): CsiClient {
  const definitions = loadServices();
  const clients = SERVICES.map((name) => {
    const Client = makeGenericClientConstructor(definitions[name], name);
    return {
      calls: new Set(Object.keys(definitions[name])),
      client: new Client(`unix://${socket}`, credentials.createInsecure(), {
        "grpc.max_receive_message_length": -1,
        "grpc.max_send_message_length": -1,
      }),
    };
  });
  const clientFor = (name: string): Message => {
    const found = clients.find(({ calls }) => calls.has(name));
    if (found === undefined) throw new Error(`there is no call ${name}`);
    return found.client;
  };
  return {
    call(name, request = {}) {
      const client = clientFor(name);
      const unary = (client[name] as Unary).bind(client);
      return new Promise((resolve, reject) => {
        unary(request, { deadline: Date.now() + limitMs }, (error, reply) => {
          if (error === null) resolve(reply);
          else reject(new Failed(name, error));
        });
      });
    },
    async stream(name, request = {}) {
      const client = clientFor(name);
      const messages: Message[] = [];
      try {
        for await (const message of client[name](request, { deadline: Date.now() + limitMs }))
          messages.push(message);
        return messages;
      } catch (error) {
        throw new Failed(name, error as ServiceError);
      }
    },
    close() {
      for (const { client } of clients) client.close();
    },
  };
}

export interface TestPluginOptions {
  /** The server's address. */
  readonly host: string;
  /** The host's folders; two plugins of one folder are one host, one after the other. */
  readonly folder: string;
  readonly service: string;
  readonly settings?: Readonly<Record<string, string>>;
  readonly exec?: Exec;
  readonly wrapService?: (service: VolumeService) => VolumeService;
  readonly blocks?: SnapshotBlocks;
  readonly places?: CsiPluginOptions["places"];
  /** The file name of its socket. */
  readonly socket?: string;
  /** How long a call may take. Default 60,000. */
  readonly limitMs?: number;
  /** How long file systems are kept frozen at most. */
  readonly mostFrozenMs?: number;
}

export interface TestPlugin extends CsiClient {
  readonly plugin: CsiPlugin;
  readonly socket: string;
  readonly log: Record<string, unknown>[];
  /** Ends it as if it were killed: nothing is waited for. */
  readonly stop: (graceMs?: number) => Promise<void>;
}

export async function openTestPlugin(options: TestPluginOptions): Promise<TestPlugin> {
  const { host, folder, service, settings, exec, wrapService, blocks, places, mostFrozenMs } =
    options;
  await mkdir(folder, { recursive: true });
  const socket = join(folder, options.socket ?? "csi.sock");
  const configuration = await loadConfiguration({
    env: { LIBSTORAGE_HOME: folder, LIBSTORAGE_CONFIG: "" },
    flags: { "libstorage.host": host, "libstorage.service": service, ...settings },
  });
  const [module] = readModules(configuration, {
    type: "csi",
    names: [],
    fallback: "csi",
    addressOf: () => `unix://${socket}`,
  });
  if (module === undefined) throw new Error("no module");
  const log: Record<string, unknown>[] = [];
  const plugin = await openCsiPlugin(module, {
    ...(exec !== undefined && { exec }),
    ...(wrapService !== undefined && { wrapService }),
    ...(blocks !== undefined && { blocks }),
    ...(places !== undefined && { places }),
    ...(mostFrozenMs !== undefined && { mostFrozenMs }),
    log: openPluginLog({}, (line) => log.push(JSON.parse(line) as Record<string, unknown>)),
  });
  const client = openCsiClient(socket, options.limitMs);
  return {
    ...client,
    plugin,
    socket,
    log,
    async stop(graceMs = 2_000) {
      client.close();
      await plugin.close(graceMs);
    },
  };
}

export async function removeFolder(folder: string): Promise<void> {
  await rm(folder, { recursive: true, force: true });
}
