/**
 * The API as a value. Server routes, client methods, the OpenAPI page and the table of operations in the
 * documentation are made from it; a route without a handler does not compile.
 */
import * as v from "valibot";
import { CONTENT_ROUTES } from "./content-routes.js";
import type { CallContext } from "./context.js";
import { HYPERVISOR_ROUTES } from "./hypervisor.js";
import type { QueryKind, QueryTypes } from "./query.js";
import * as x from "./export-requests.js";
import * as r from "./requests.js";
import * as t from "./types.js";

export interface Route {
  readonly method: "GET" | "POST" | "DELETE" | "HEAD";
  /** Path variables stand as `:name`. */
  readonly path: string;
  /** The query parameter whose presence selects this operation among those of one path. */
  readonly action?: string;
  readonly query: Readonly<Record<string, QueryKind>>;
  readonly body?: v.GenericSchema;
  readonly reply: v.GenericSchema;
  /** Status of success. */
  readonly status: number;
  /** Whether `async` makes a task of it. */
  readonly task: boolean;
  /**
   * `service`: an operation of the storage service; `content`: one whose body is a stream; `server`: about the
   * server that answers.
   */
  readonly of: "service" | "content" | "server";
  /** One line for people. */
  readonly about: string;
}

const read = { method: "GET", status: 200, of: "service" } as const;
const page = { limit: "count", after: "text" } as const;
const none = {} as const;
const Nothing = v.null();
const Urls = v.array(v.string());

export const ROUTES = {
  root: {
    ...read,
    of: "server",
    path: "/",
    query: none,
    reply: Urls,
    task: false,
    about: "The top URLs",
  },
  help: {
    ...read,
    of: "server",
    path: "/help",
    query: none,
    reply: Urls,
    task: false,
    about: "The help URLs",
  },
  helpVersion: {
    ...read,
    of: "server",
    path: "/help/version",
    query: none,
    reply: v.string(),
    task: false,
    about: "The server's version",
  },
  helpConfig: {
    ...read,
    of: "server",
    path: "/help/config",
    query: { admin: "text" },
    reply: v.record(v.string(), v.unknown()),
    task: false,
    about: "The server's configuration, secrets left out; needs the admin token",
  },
  helpEnv: {
    ...read,
    of: "server",
    path: "/help/env",
    query: { admin: "text" },
    reply: v.array(v.string()),
    task: false,
    about: "The server's environment, secrets left out; needs the admin token",
  },
  health: {
    ...read,
    of: "server",
    path: "/health",
    query: none,
    reply: t.Health,
    task: false,
    about: "How the server, its services and certificates are",
  },
  ready: {
    ...read,
    of: "server",
    path: "/ready",
    query: none,
    reply: t.Health,
    task: false,
    about: "200 once every service is ready, else 503",
  },
  openapi: {
    ...read,
    of: "server",
    path: "/openapi.json",
    query: none,
    reply: v.record(v.string(), v.unknown()),
    task: false,
    about: "This API as an OpenAPI document",
  },
  events: {
    ...read,
    of: "server",
    path: "/events",
    query: { service: "text", lastEventID: "text" },
    reply: v.unknown(),
    task: false,
    about: "Changes as server-sent events; Last-Event-ID replays what was missed",
  },
  qmp: {
    method: "POST",
    status: 200,
    of: "server",
    path: "/qmp",
    query: none,
    reply: v.unknown(),
    task: false,
    about:
      "A conversation in QMP, QEMU's protocol: commands in the body, replies and events in the answer",
  },
  executors: {
    ...read,
    of: "server",
    path: "/executors",
    query: none,
    reply: t.ExecutorsMap,
    task: false,
    about: "The executors that clients can download",
  },
  executorGet: {
    ...read,
    of: "server",
    path: "/executors/:executor",
    query: none,
    reply: v.unknown(),
    task: false,
    about: "An executor",
  },
  executorHead: {
    ...read,
    of: "server",
    method: "HEAD",
    path: "/executors/:executor",
    query: none,
    reply: v.unknown(),
    task: false,
    about: "The headers of an executor",
  },

  services: {
    ...read,
    path: "/services",
    query: { instance: "flag" },
    reply: t.ServicesMap,
    task: false,
    about: "All services",
  },
  serviceInspect: {
    ...read,
    path: "/services/:service",
    query: { instance: "flag", abilities: "flag", capacity: "flag", contents: "flag" },
    reply: t.ServiceInfo,
    task: false,
    about: "One service",
  },

  volumes: {
    ...read,
    path: "/volumes",
    query: { attachments: "mask", filter: "text", refresh: "flag", ...page },
    reply: t.ServiceVolumeMap,
    task: true,
    about: "The volumes of all services",
  },
  volumesByService: {
    ...read,
    path: "/volumes/:service",
    query: { attachments: "mask", filter: "text", refresh: "flag", ...page },
    reply: t.VolumeMap,
    task: true,
    about: "The volumes of a service",
  },
  volumeInspect: {
    ...read,
    path: "/volumes/:service/:volumeID",
    query: { attachments: "mask", byName: "flag" },
    reply: t.Volume,
    task: true,
    about: "One volume, by id or name",
  },
  volumeCreate: {
    method: "POST",
    of: "service",
    path: "/volumes/:service",
    query: none,
    body: r.VolumeCreateRequest,
    reply: t.Volume,
    status: 201,
    task: true,
    about: "Create a volume",
  },
  volumeCopy: {
    method: "POST",
    of: "service",
    path: "/volumes/:service/:volumeID",
    action: "copy",
    query: none,
    body: r.VolumeCopyRequest,
    reply: t.Volume,
    status: 201,
    task: true,
    about: "Copy a volume",
  },
  volumeSnapshot: {
    method: "POST",
    of: "service",
    path: "/volumes/:service/:volumeID",
    action: "snapshot",
    query: none,
    body: r.VolumeSnapshotRequest,
    reply: t.Snapshot,
    status: 201,
    task: true,
    about: "Snapshot a volume",
  },
  volumeAttach: {
    method: "POST",
    of: "service",
    path: "/volumes/:service/:volumeID",
    action: "attach",
    query: none,
    body: r.VolumeAttachRequest,
    reply: t.VolumeAttachResponse,
    status: 200,
    task: true,
    about: "Attach a volume to the calling instance",
  },
  volumeDetach: {
    method: "POST",
    of: "service",
    path: "/volumes/:service/:volumeID",
    action: "detach",
    query: none,
    body: r.VolumeDetachRequest,
    reply: v.nullable(t.Volume),
    status: 205,
    task: true,
    about: "Detach a volume from the calling instance",
  },
  volumeExpand: {
    method: "POST",
    of: "service",
    path: "/volumes/:service/:volumeID",
    action: "expand",
    query: none,
    body: r.VolumeExpandRequest,
    reply: t.Volume,
    status: 200,
    task: true,
    about: "Make a volume larger",
  },
  volumeRevert: {
    method: "POST",
    of: "service",
    path: "/volumes/:service/:volumeID",
    action: "revert",
    query: none,
    body: r.VolumeRevertRequest,
    reply: t.Volume,
    status: 200,
    task: true,
    about: "Bring a volume back to one of its snapshots; all snapshots stay",
  },
  volumeUpdate: {
    method: "POST",
    of: "service",
    path: "/volumes/:service/:volumeID",
    action: "update",
    query: none,
    body: r.VolumeUpdateRequest,
    reply: t.Volume,
    status: 200,
    task: true,
    about:
      "Change what a service lets change of a volume, in use or not: name, fields and the like",
  },
  volumeShrink: {
    method: "POST",
    of: "service",
    path: "/volumes/:service/:volumeID",
    action: "shrink",
    query: none,
    body: r.VolumeShrinkRequest,
    reply: t.Volume,
    status: 200,
    task: true,
    about:
      "Make a volume smaller; data behind its new end are a reason to refuse, unless they may be discarded",
  },
  volumeConvert: {
    method: "POST",
    of: "service",
    path: "/volumes/:service/:volumeID",
    action: "convert",
    query: none,
    body: r.VolumeFormatRequest,
    reply: t.Volume,
    status: 200,
    task: true,
    about: "Write an image anew in another format, or in its own without what lies below it",
  },
  volumeCheck: {
    method: "POST",
    of: "service",
    path: "/volumes/:service/:volumeID",
    action: "check",
    query: none,
    body: r.VolumeCheckRequest,
    reply: t.ImageCheck,
    status: 200,
    task: true,
    about: "Look at the structure of an image, and mend leaks if asked to",
  },
  volumeMeasure: {
    method: "POST",
    of: "service",
    path: "/volumes/:service/:volumeID",
    action: "measure",
    query: none,
    body: r.VolumeFormatRequest,
    reply: t.ImageSize,
    status: 200,
    task: true,
    about: "What a file of a format would take for the content of an image",
  },
  volumeDetachAllForService: {
    method: "POST",
    of: "service",
    path: "/volumes/:service",
    action: "detach",
    query: none,
    body: r.VolumeDetachRequest,
    reply: t.VolumeMap,
    status: 205,
    task: true,
    about: "Detach every volume of a service from the calling instance",
  },
  volumeDetachAll: {
    method: "POST",
    of: "service",
    path: "/volumes",
    action: "detach",
    query: none,
    body: r.VolumeDetachRequest,
    reply: t.ServiceVolumeMap,
    status: 205,
    task: true,
    about: "Detach every volume of every service from the calling instance",
  },
  volumeRemove: {
    method: "DELETE",
    of: "service",
    path: "/volumes/:service/:volumeID",
    query: { force: "flag" },
    reply: Nothing,
    status: 204,
    task: true,
    about: "Remove a volume",
  },

  snapshots: {
    ...read,
    path: "/snapshots",
    query: { filter: "text", refresh: "flag", ...page },
    reply: t.ServiceSnapshotMap,
    task: true,
    about: "The snapshots of all services",
  },
  snapshotsByService: {
    ...read,
    path: "/snapshots/:service",
    query: { filter: "text", refresh: "flag", ...page },
    reply: t.SnapshotMap,
    task: true,
    about: "The snapshots of a service",
  },
  snapshotInspect: {
    ...read,
    path: "/snapshots/:service/:snapshotID",
    query: { byName: "flag" },
    reply: t.Snapshot,
    task: true,
    about: "One snapshot, by id or name",
  },
  volumeCreateFromSnapshot: {
    method: "POST",
    of: "service",
    path: "/snapshots/:service/:snapshotID",
    action: "create",
    query: none,
    body: r.VolumeCreateRequest,
    reply: t.Volume,
    status: 201,
    task: true,
    about: "Create a volume from a snapshot",
  },
  snapshotCopy: {
    method: "POST",
    of: "service",
    path: "/snapshots/:service/:snapshotID",
    action: "copy",
    query: none,
    body: r.SnapshotCopyRequest,
    reply: t.Snapshot,
    status: 201,
    task: true,
    about: "Copy a snapshot",
  },
  snapshotRemove: {
    method: "DELETE",
    of: "service",
    path: "/snapshots/:service/:snapshotID",
    query: none,
    reply: Nothing,
    status: 205,
    task: true,
    about: "Remove a snapshot",
  },

  ...CONTENT_ROUTES,

  exports: {
    ...read,
    path: "/exports",
    query: none,
    reply: t.ServiceExportMap,
    task: false,
    about: "How other hosts reach volumes, of all services, and who is connected",
  },
  exportsByService: {
    ...read,
    path: "/exports/:service",
    query: none,
    reply: v.array(t.Export),
    task: false,
    about: "How other hosts reach the volumes of a service, and who is connected",
  },
  exportInspect: {
    ...read,
    path: "/exports/:service/:exportID",
    query: none,
    reply: t.Export,
    task: false,
    about: "One export that was added, and who is connected",
  },
  exportAdd: {
    method: "POST",
    of: "service",
    path: "/exports/:service",
    query: none,
    body: x.ExportAddRequest,
    reply: t.Export,
    status: 201,
    task: true,
    about: "Serve a volume from the storage host: as NBD, as a file, or to a virtual machine",
  },
  exportUpdate: {
    method: "POST",
    of: "service",
    path: "/exports/:service/:exportID",
    query: none,
    body: x.ExportUpdateRequest,
    reply: t.Export,
    status: 200,
    task: true,
    about: "Change the throttle, the number of connections or who may connect, while it is in use",
  },
  exportRemove: {
    method: "DELETE",
    of: "service",
    path: "/exports/:service/:exportID",
    query: { mode: "text" },
    reply: v.nullable(t.Export),
    status: 200,
    task: true,
    about:
      "Remove an export: `safe` (default), `hard`, `hide` or `soft`; answers what is left of it, or null",
  },

  ...HYPERVISOR_ROUTES,

  tasks: {
    ...read,
    path: "/tasks",
    query: none,
    reply: t.TaskMap,
    task: false,
    about: "All tasks",
  },
  taskInspect: {
    ...read,
    path: "/tasks/:taskID",
    query: none,
    reply: t.Task,
    task: false,
    about: "One task",
  },
  taskCancel: {
    method: "DELETE",
    of: "service",
    path: "/tasks/:taskID",
    query: none,
    reply: t.Task,
    status: 200,
    task: false,
    about: "Cancel a task",
  },
} as const satisfies Record<string, Route>;

export type Routes = typeof ROUTES;
export type Operation = keyof Routes;

type PathNames<P extends string> = P extends `${string}:${infer Name}/${infer Rest}`
  ? Name | PathNames<`/${Rest}`>
  : P extends `${string}:${infer Name}`
    ? Name
    : never;

/** Path variables are texts and always there; query parameters may be left out. */
export type Params<Op extends Operation> = Readonly<
  Record<PathNames<Routes[Op]["path"]>, string> & {
    [Q in keyof Routes[Op]["query"]]?: Routes[Op]["query"][Q] extends QueryKind
      ? QueryTypes[Routes[Op]["query"][Q]]
      : never;
  }
>;

export type Body<Op extends Operation> = Routes[Op] extends {
  body: infer S extends v.GenericSchema;
}
  ? v.InferOutput<S>
  : undefined;

export type Reply<Op extends Operation> = v.InferOutput<Routes[Op]["reply"]>;

/** The operations of the storage service, in contrast to those about the server that answers. */
export type ServiceOperation = {
  [Op in Operation]: Routes[Op]["of"] extends "service" ? Op : never;
}[Operation];

/** The operations that carry content. */
export type ContentOperation = keyof typeof CONTENT_ROUTES;

/**
 * What a front-end calls: in-process on the server, over HTTP in the client. Each resolves to what the
 * route answers once the work is done; objects in replies are shared and must not be changed.
 * @throws {StorageError}
 */
export type VolumeService = {
  readonly [Op in ServiceOperation]: (
    params: Params<Op>,
    body: Body<Op>,
    context: CallContext,
  ) => Promise<Reply<Op>>;
};
