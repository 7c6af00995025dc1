import type { Num, Peek } from "../types";

/** The embeddings in the plane of their largest spread, computed by Python; `explained` are shares of the spread. */
export interface Projection { name: string; labels: string[]; points: [Num, Num][]; explained: [Num, Num] }

/** A peek that may carry a projection. */
export type Pictured = Peek & { projection?: Projection | null };
