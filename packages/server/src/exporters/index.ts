/** Every exporter there is, by the name that a service's configuration uses. */
import type { ExporterModule } from "../core/exporter.js";
import { nfs } from "./nfs/index.js";

export const EXPORTERS = { nfs } as const satisfies Record<string, ExporterModule>;
