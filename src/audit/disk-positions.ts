/** Where a disk's events stood in its source, and where they stand in the file: one entry a stretch, found by bisection. */
export class Positions {
  readonly #from: number[] = []
  readonly #count: number[] = []
  /** Index of the stretch's first event in the file. */
  readonly #index: number[] = []
  events = 0

  /**
   * A record's stretches in the source, as pairs of first position and count, holding `count` events. A stretch may stand for one
   * event (a window). False when they do not ascend, or do not add up.
   */
  add(runs: readonly number[], count: number): boolean {
    let left = count
    for (let i = 0; i < runs.length; i += 2) {
      const from = runs[i]!
      const span = runs[i + 1]!
      const last = this.#from.length - 1
      if (span < 1 || (last >= 0 && from < this.#from[last]! + this.#count[last]!)) return false
      const events = runs.length === 2 ? count : Math.min(span, left)
      if (events !== span && events !== 1) return false
      this.#push(from, span, events)
      left -= events
    }
    return left === 0
  }

  #push(from: number, span: number, events: number): void {
    const last = this.#from.length - 1
    const whole = span === events
    const follows =
      last >= 0 &&
      from === this.#from[last]! + this.#count[last]! &&
      this.events === this.#index[last]! + this.#count[last]!
    if (whole && follows && this.#wholes[last] === true) this.#count[last] = this.#count[last]! + span
    else {
      this.#from.push(from)
      this.#count.push(span)
      this.#index.push(this.events)
      this.#wholes.push(whole)
    }
    this.events += events
  }

  readonly #wholes: boolean[] = []

  /** Index in the file of the last event at or before `position` of the source; -1: before all of them. */
  of(position: number): number {
    let low = 0
    let high = this.#from.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.#from[middle]! <= position) low = middle + 1
      else high = middle
    }
    const at = low - 1
    if (at < 0) return -1
    if (this.#wholes[at] !== true) return this.#index[at]!
    return this.#index[at]! + Math.min(position - this.#from[at]!, this.#count[at]! - 1)
  }

  /** Source position, count, position in a log where the file's first event stands at `start`. */
  table(start: number): (readonly [number, number, number])[] {
    return this.#from.map((from, i) => [from, this.#count[i]!, start + this.#index[i]!] as const)
  }
}
