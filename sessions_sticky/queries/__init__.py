"""Operations on many sessions: list, search, move, delete, count, rebuild the index, and the doctor."""
