/**
 * The API as a value. Server routes, client methods, the OpenAPI page and the table of operations in the
 * documentation are made from it; a route without a handler does not compile.
 */
import type * as v from "valibot";
import { CONTENT_ROUTES } from "./content-routes.js";
import type { CallContext } from "./context.js";
import { EXPORT_ROUTES } from "./export-routes.js";
import { HYPERVISOR_ROUTES } from "./hypervisor.js";
import type { QueryKind, QueryTypes } from "./query.js";
import { none, read } from "./route-parts.js";
import { SERVER_ROUTES } from "./server-routes.js";
import * as t from "./types.js";
import { VOLUME_ROUTES } from "./volume-routes.js";

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

export const ROUTES = {
  ...SERVER_ROUTES,

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

  ...VOLUME_ROUTES,

  ...CONTENT_ROUTES,

  ...EXPORT_ROUTES,

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
