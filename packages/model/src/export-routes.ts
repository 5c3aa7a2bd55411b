/** The routes of exports. */
import * as v from "valibot";
import * as x from "./export-requests.js";
import { none, read } from "./route-parts.js";
import * as t from "./types.js";

export const EXPORT_ROUTES = {
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
} as const;
