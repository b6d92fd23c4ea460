// What bindings.cpp and the CPU kernels of each instruction set agree on.
#pragma once

#include "layout.h"

namespace zoo::rational {

// The work is cut into chunks of rows x columns whose size follows from the shape alone, and their sums are
// added in the order of the chunks: the result doesn't depend on the number of threads.
struct Chunks {
  static constexpr int64_t kColumns = 16384;       // where rows are longer they are cut; a multiple of all vectors
  static constexpr int64_t kElements = 32768;      // enough to pay for setting up coefficients and adding up sums
  static constexpr int64_t kElementsPerSum = 512;  // the sums are small beside the data, whatever the groups

  int64_t rows, columns;  // of one chunk
  int64_t count_down, count_across;
  int64_t slots;  // groups that a chunk can touch

  __attribute__((always_inline)) explicit Chunks(const Layout& layout) {
    const int64_t total = columns_of(layout);
    columns = total < kColumns ? total : kColumns;
    slots = columns == total ? layout.groups : kColumns / layout.length + 2;
    if (slots > layout.groups) slots = layout.groups;
    const int64_t elements = kElements > kElementsPerSum * slots ? kElements : kElementsPerSum * slots;
    rows = (elements + columns - 1) / columns;
    count_down = (layout.rows + rows - 1) / rows;
    count_across = (total + columns - 1) / columns;
  }
  __attribute__((always_inline)) int64_t count() const { return count_down * count_across; }
};

struct Chunk {
  int64_t row_begin, row_end, column_begin, column_end, first_group;
};

ZOO_INLINE Chunk chunk_at(const Chunks& chunks, const Layout& layout, int64_t index) {
  const int64_t down = index / chunks.count_across, across = index % chunks.count_across;
  Chunk c;
  c.row_begin = down * chunks.rows;
  c.row_end = c.row_begin + chunks.rows < layout.rows ? c.row_begin + chunks.rows : layout.rows;
  c.column_begin = across * chunks.columns;
  c.column_end = across + 1 == chunks.count_across ? columns_of(layout) : c.column_begin + chunks.columns;
  c.first_group = c.column_begin / layout.length;
  return c;
}

struct Kernels {
  const char* name;
  // Bytes that the functions below use as scratch while they work on one chunk, aligned to 64.
  int64_t (*scratch)(const Problem&, const Chunks&);
  void (*evaluate)(const Problem&, const Chunk&, void* scratch);
  // Adds to sums[slot][sums_of(problem)], slot being the group counted from the chunk's first.
  void (*differentiate)(const Problem&, const Chunk&, void* scratch, double* sums);
};

extern const Kernels baseline_kernels;
extern const Kernels avx2_kernels;
extern const Kernels avx512_kernels;

}  // namespace zoo::rational
