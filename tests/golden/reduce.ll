define void @k3d19302241c7bd48.0(ptr %args, i64 %begin, i64 %end) nounwind {
entry:
  %v1 = load ptr, ptr %args, align 8
  %v2 = getelementptr inbounds ptr, ptr %args, i64 1
  %v3 = load ptr, ptr %v2, align 8
  %v4 = load <8 x float>, ptr %v1, align 4
  %v5 = load <8 x float>, ptr %v1, align 4
  %v6 = fadd contract <8 x float> %v4, %v5
  store <8 x float> %v6, ptr %v3, align 4
  %v7 = getelementptr inbounds float, ptr %v1, i64 8
  %v8 = load <3 x float>, ptr %v7, align 4
  %v9 = getelementptr inbounds float, ptr %v1, i64 8
  %v10 = load <3 x float>, ptr %v9, align 4
  %v11 = fadd contract <3 x float> %v8, %v10
  %v12 = getelementptr inbounds float, ptr %v3, i64 8
  store <3 x float> %v11, ptr %v12, align 4
  ret void
}
