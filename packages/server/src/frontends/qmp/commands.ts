/** The commands of QMP that this server has, after the capabilities are agreed on. */
import type { CallContext, ExportAddRequest, ExportRemoveMode } from "@libstorage/model";
import type { BlockExports } from "./exports.js";
import { QmpFailure } from "./failure.js";
import type { NbdAddress, NbdServer } from "./nbd-server.js";
import { SchemaPage } from "./qapi.js";
import type { Arguments, QapiStruct, QapiType, QapiUnion } from "./qapi.js";
import * as types from "./types.js";

export interface QmpCommand {
  readonly args: QapiStruct | QapiUnion;
  /** Left out when it answers `{}`. */
  readonly returns?: QapiType;
  /** @param args checked */
  run(args: Arguments, context: CallContext): Promise<unknown>;
}

export type Commands = Readonly<Record<string, QmpCommand>>;

export interface CommandParts {
  readonly exports: BlockExports;
  readonly nbd: NbdServer;
  readonly version: unknown;
}

interface Address {
  readonly type: string;
  readonly data?: Arguments;
  readonly path?: string;
}

function textIn(args: Arguments, name: string): string | undefined {
  const value = args[name];
  return typeof value === "string" ? value : undefined;
}

/** Copies members that were given, under their names in the API. */
function given(args: Arguments, names: Readonly<Record<string, string>>): object {
  return Object.fromEntries(
    Object.entries(names).flatMap(([from, to]) =>
      Object.hasOwn(args, from) ? [[to, args[from]]] : [],
    ),
  );
}

function refuseFalse(data: Arguments, ...names: readonly string[]): void {
  for (const name of names)
    if (data[name] !== undefined && data[name] !== false)
      throw new QmpFailure(`Parameter 'addr.data.${name}' is not supported by this server`);
}

function addressOf({ type, data = {} }: Address): NbdAddress {
  if (type === "unix") {
    refuseFalse(data, "abstract", "tight");
    return { kind: "unix", path: textIn(data, "path") ?? "" };
  }
  if (type !== "inet")
    throw new QmpFailure("Only socket address types 'unix' and 'inet' are supported");
  refuseFalse(data, "to", "mptcp");
  const [host = "", port = ""] = [textIn(data, "host"), textIn(data, "port")];
  if (!/^\d{1,5}$/.test(port) || Number(port) > 0xffff)
    throw new QmpFailure(
      `address resolution failed for ${host}:${port}: Servname not supported for ai_socktype`,
    );
  return { kind: "tcp", host, port: Number(port) };
}

/** QEMU's threads: a storage daemon that has them ends when a client leaves. */
function refuseThreads(args: Arguments): void {
  const iothread = textIn(args, "iothread");
  if (iothread !== undefined) throw new QmpFailure(`iothread "${iothread}" not found`);
}

function modeOf(args: Arguments): ExportRemoveMode {
  return (textIn(args, "mode") ?? "safe") as ExportRemoveMode;
}

type Wanted = Omit<ExportAddRequest, "volumeID"> & { readonly id: string };

const COMMON = { writable: "writable", writethrough: "writethrough" };
const NBD = {
  description: "description",
  bitmaps: "bitmaps",
  "allocation-depth": "allocationDepth",
};
const FUSE = { mountpoint: "path", growable: "growable", "allow-other": "allowOther" };
const VHOST = { "logical-block-size": "logicalBlockSize", "num-queues": "numQueues" };

function nbdCommands({ exports, nbd }: CommandParts): Commands {
  return {
    "nbd-server-start": {
      args: types.NbdServerStart,
      run: async (args) => {
        if (nbd.isRunning) throw new QmpFailure("NBD server already running");
        const creds = textIn(args, "tls-creds");
        if (creds !== undefined) throw new QmpFailure(`No TLS credentials with id '${creds}'`);
        if (args["tls-authz"] !== undefined)
          throw new QmpFailure("'tls-authz' is not used without TLS credentials");
        const most = args["max-connections"];
        const address = addressOf(args["addr"] as Address);
        await nbd.start(address, typeof most === "number" ? most : 0);
      },
    },
    "nbd-server-stop": { args: types.Nothing, run: (_args, context) => nbd.stop(context) },
    "nbd-server-add": {
      args: types.NbdServerAdd,
      run: async (args, context) => {
        if (!nbd.isRunning) throw new QmpFailure("NBD server not running");
        const device = textIn(args, "device") ?? "";
        const node = await exports.node(device, device);
        const name = textIn(args, "name") ?? device;
        const bitmap = textIn(args, "bitmap");
        const wanted = {
          type: "nbd",
          transport: "unix",
          id: name,
          name,
          ...given(args, { ...COMMON, ...NBD }),
          ...(bitmap !== undefined && { bitmaps: [bitmap] }),
        } as Wanted;
        await nbd.add(name, { service: node.service, id: name }, () =>
          exports.add(node, wanted, context),
        );
      },
    },
    "nbd-server-remove": {
      args: types.NbdServerRemove,
      run: async (args, context) => {
        const name = textIn(args, "name") ?? "";
        const found = await exports.find(name);
        if (found.type !== "nbd")
          throw new QmpFailure(`Block export '${name}' is not an NBD export`);
        await exports.remove(found, modeOf(args), context);
      },
    },
  };
}

function exportCommands({ exports, nbd }: CommandParts): Commands {
  return {
    "block-export-add": {
      args: types.BlockExportAdd,
      run: async (args, context) => {
        refuseThreads(args);
        const id = textIn(args, "id") ?? "";
        const type = textIn(args, "type");
        const nodeName = textIn(args, "node-name") ?? "";
        const node = await exports.node(nodeName);
        const wanted = { type, id, ...given(args, COMMON) };
        if (type === "nbd") {
          const name = textIn(args, "name") ?? nodeName;
          const nbdWanted = { ...wanted, transport: "unix", name, ...given(args, NBD) } as Wanted;
          await nbd.add(name, { service: node.service, id }, () =>
            exports.add(node, nbdWanted, context),
          );
        } else if (type === "fuse")
          await exports.add(node, { ...wanted, ...given(args, FUSE) } as Wanted, context);
        else await exports.add(node, vhostOf(args, wanted), context);
      },
    },
    "block-export-del": {
      args: types.BlockExportDel,
      run: async (args, context) =>
        exports.remove(await exports.find(textIn(args, "id") ?? ""), modeOf(args), context),
    },
    "query-block-exports": {
      args: types.Nothing,
      returns: { kind: "list", of: types.BlockExportInfo },
      run: async () => {
        const all = await exports.list();
        const names = await exports.nodeNames(all);
        return all.map(({ id, type, isShuttingDown }, index) => ({
          "node-name": names[index],
          "shutting-down": isShuttingDown,
          type,
          id,
        }));
      },
    },
  };
}

function vhostOf(args: Arguments, wanted: object): Wanted {
  const addr = args["addr"] as Address;
  if (addr.type !== "unix") throw new QmpFailure("Only socket address type 'unix' is supported");
  if (args["num-queues"] === 0) throw new QmpFailure("num-queues must be greater than 0");
  return { ...wanted, path: addr.path, ...given(args, VHOST) } as Wanted;
}

export function commandsOf(parts: CommandParts): Commands {
  const commands: Record<string, QmpCommand> = {
    ...exportCommands(parts),
    ...nbdCommands(parts),
    "query-version": {
      args: types.Nothing,
      returns: types.VersionInfo,
      run: async () => parts.version,
    },
    "query-commands": {
      args: types.Nothing,
      returns: { kind: "list", of: types.CommandInfo },
      run: async () => ["qmp_capabilities", ...Object.keys(commands)].map((name) => ({ name })),
    },
    "query-qmp-schema": {
      args: types.Nothing,
      returns: { kind: "list", of: { kind: "struct", name: "SchemaInfo", members: {} } },
      run: async () => schemaOf(commands),
    },
  };
  return commands;
}

function schemaOf(commands: Commands): unknown {
  const page = new SchemaPage();
  page.command("qmp_capabilities", types.Capabilities, undefined);
  for (const [name, { args, returns }] of Object.entries(commands))
    page.command(name, args, returns);
  page.event("BLOCK_EXPORT_DELETED", types.ExportDeleted);
  return page.entries;
}
