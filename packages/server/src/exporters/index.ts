/** Every exporter there is, by the name that a service's configuration uses. */
import type { ExporterModule } from "../core/exporter.js";

export const EXPORTERS = {} as const satisfies Record<string, ExporterModule>;
